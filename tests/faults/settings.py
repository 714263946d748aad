"""Rows F1 and F2: wrong settings, from every place they may come from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from agent.settings import BadSetting, Settings, environment_name_of, flag_of, key_of, kind_of, read_settings
from tests.faults.row import Run, row, skip
from tests.faults.surroundings_access import folder_for_all
from tests.support.agent_process import PATIENCE, AgentProcess, names, wait_for
from tests.support.nucleus import Nucleus
from tests.support.wrong_settings import WRONG, WRONG_TYPES

WRONG_SETTING = 2
"""Exit code of `edge-agent serve`."""
KIND = {setting.name: kind_of(setting) for setting in fields(Settings)}
UNKNOWN = "sokcet"
TRUTH = {"auto_start", "unload_first"}
"""Settings that take some of WRONG_TYPES."""
ALMIGHTY_NO_MORE = ("setpriv", "--bounding-set=-dac_override")
"""Runs a command as a root to whom the modes of folders apply."""


def cases() -> list[tuple[str, object]]:
    """Every setting with every wrong value, and an unknown one."""
    texts = [(name, value) for name, values in WRONG.items() for value in values]
    others = [(name, value) for name in WRONG for value in (*WRONG_TYPES, None) if name not in TRUTH]
    return [*texts, *others, (UNKNOWN, "1")]


def needs_sdk() -> None:
    pytest.importorskip("awsiot.greengrasscoreipc.clientv2", reason="awsiotsdk (extra `greengrass`) is not installed")


@row(
    "F1",
    "wrong and unknown values from flag, environment, file and Greengrass, live: named, refused or without effect",
    unit="values",
    full=2000,
    short=24,
    uses_shared_agent=False,
)
def wrong_values(run: Run) -> None:
    needs_sdk()
    all_cases = cases()
    with Nucleus() as nucleus, AgentProcess(environment=nucleus.environment) as agent:
        wait_for("the report", lambda: nucleus.states != [])
        stub = agent.stub()
        for step in run.steps():
            # All settings early, all values once.
            name, value = all_cases[step * 37 % len(all_cases)]
            run.saw(refused_at_the_start(run.folder, name, value))
            run.saw(followed_without_effect(agent, nucleus, name, value))
            assert names(stub) == []
        assert " was " not in agent.log_text(), "a wrong value took effect"
        assert agent.stop() == 0


def refused_at_the_start(folder: Path, name: str, value: object) -> str:
    file = folder / "configuration.json"
    file.write_text(json.dumps({key_of(name): value}))
    places: list[tuple[str, Callable[[], Settings]]] = [(key_of(name), lambda: read_settings({}, {}, file))]
    if isinstance(value, str):
        places += [(environment_name_of(name), lambda: read_settings({}, {environment_name_of(name): value}, None))]
        if name in KIND:  # argparse refuses unknown flags
            places += [(flag_of(name), lambda: read_settings({name: value}, {}, None))]
    for key, read in places:
        if name in KIND:
            with pytest.raises(BadSetting) as refusal:
                read()
            assert str(refusal.value) == f"{key} is {repr(value)[:200]}; it must be {KIND[name].allowed}."
        else:
            with pytest.raises(Exception, match=rf"names the setting '{key}', which does not exist"):
                read()
    return "refused at the start"


def followed_without_effect(agent: AgentProcess, nucleus: Nucleus, name: str, value: object) -> str:
    key = key_of(name)
    told = f"Greengrass configuration: {key} is " if name in KIND else f"they have no effect: '{key}'"
    before = agent.log_text().count(told)
    nucleus.change(**{key: value})
    wait_for(f"a line about {key}", lambda: agent.log_text().count(told) > before)
    assert agent.log_text().count(told) == before + 1
    nucleus.reset(key)
    return "live: a line, no effect"


# --- F2 ---


def _too_long(folder: Path) -> str:
    return f"unix:///tmp/{'x' * 107}"


def _relative(folder: Path) -> str:
    return "unix:agent.sock"


def _missing_folder(folder: Path) -> str:
    return f"unix://{folder}/missing/s"


def _below_a_file(folder: Path) -> str:
    (folder / "file").touch()
    return f"unix://{folder}/file/s"


def _not_writable(folder: Path) -> str:
    (folder / "closed").mkdir(mode=0o555)
    return f"unix://{folder}/closed/s"


def _where_nobody_makes_files(folder: Path) -> str:
    return "unix:///proc/s"


BAD_PLACES: dict[str, tuple[Callable[[Path], str], str]] = {
    "longer than 107 bytes": (_too_long, "it must be unix:///path with an absolute path of at most 107 bytes"),
    "relative": (_relative, "it must be unix:///path with an absolute path of at most 107 bytes"),
    "in a missing folder": (_missing_folder, "cannot be made: No such file or directory"),
    "below a file": (_below_a_file, "cannot be made: Not a directory"),
    "in a folder that is not writable": (_not_writable, "cannot be made: Permission denied"),
    "in a file system without new files": (_where_nobody_makes_files, "cannot be made: No such file or directory"),
}
"""Where the socket is to be, and what the agent says of it."""


@row(
    "F2",
    "socket paths that cannot be: one clear line and exit code 2",
    unit="starts",
    full=600,
    short=len(BAD_PLACES),
    uses_shared_agent=False,
)
def bad_places(run: Run) -> None:
    is_root = os.geteuid() == 0
    if is_root and shutil.which("setpriv") is None:
        skip("the tests run as root, who may write everywhere, and there is no setpriv")
    for _ in run.steps(each=len(BAD_PLACES)):
        for name, (place, said) in BAD_PLACES.items():
            with folder_for_all() as folder:
                agent = AgentProcess("--socket", place(folder), through=ALMIGHTY_NO_MORE if is_root else ())
                try:
                    assert agent.launch().wait(PATIENCE) == WRONG_SETTING, name
                    (line,) = agent.log_text().splitlines()
                    assert line.startswith("edge-agent serve: ") and said in line, line
                    run.saw(name)
                finally:
                    agent.__exit__(None, None, None)
