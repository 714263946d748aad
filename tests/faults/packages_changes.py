"""Rows E8, E10 and E11: packages that change or go, appear bit by bit, may not be read, or hold more than models."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from agent.packages.package import read_package
from agent.wire import edge_agent_pb2 as wire
from tests.faults.clients import start, stop
from tests.faults.packages_support import Canary, Suspect, check_sentence, empty, put, suspect
from tests.faults.packages_weights import WEIGHTS_FILE, package_with_weights
from tests.faults.processes_support import answers_right, replacement, wait_until_running
from tests.faults.row import Run, row
from tests.faults.surroundings_access import IS_ROOT, NOBODY, folder_for_all
from tests.support.agent_process import PATIENCE, AgentProcess, describe, gone, names, status, wait_for
from tests.support.checkout import ROOT
from tests.support.packages import add_file, changed, make_package, rewrite_manifest

# --- E8: what is on disk changes while the model runs

CHANGED: dict[str, Callable[[Path], object]] = {
    "another byte": lambda file: _overwrite(file, file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1])),
    "shorter": lambda file: os.truncate(file, 10),
    "empty": lambda file: os.truncate(file, 0),
    "gone": Path.unlink,
    "another file": lambda file: _replace(file, b"another model"),
    "link": lambda file: (file.unlink(), file.symlink_to("/dev/zero")),
}
"""What happens to the model's file."""
WEIGHTS = "weights overwritten"


def _overwrite(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def _replace(file: Path, content: bytes) -> None:
    other = file.with_suffix(".new")
    other.write_bytes(content)
    other.rename(file)


@row(
    "E8",
    "a model's file changes while it runs: the next worker and start refuse it, and at once where its weights changed",
    unit="changes",
    full=1000,
    short=1,
)
def changed_files(run: Run) -> None:
    kinds = [*CHANGED, WEIGHTS]
    package_with_weights(run.folder / "weights")
    with suspect(run) as model:
        for number in run.steps():
            kind = kinds[number % len(kinds)]
            if kind == WEIGHTS:
                _change_weights(run, model)
            else:
                _change_model(run, model, CHANGED[kind])
            run.saw(kind)


def _change_model(run: Run, model: Suspect, change: Callable[[Path], object]) -> None:
    """It was read into memory, so it answers until it is read again."""
    put(run.folder / "good", model.folder)
    worker = _running(run.agent, model)
    change(model.folder / "model.onnx")
    answers_right(run.agent, model.component)
    os.kill(worker, signal.SIGKILL)
    said = _failed(run, model)
    assert '"model.onnx" in the package: ' in said, said
    assert model.is_refused() == said


def _change_weights(run: Run, model: Suspect) -> None:
    """They are mapped, so another content changes the answers; the agent is to notice by itself."""
    put(run.folder / "weights", model.folder)
    _running(run.agent, model)
    answers_right(run.agent, model.component)
    _overwrite(model.folder / WEIGHTS_FILE, bytes(4))
    assert f'"{WEIGHTS_FILE}" in the package: its SHA-256 is' in _failed(run, model)


def _failed(run: Run, model: Suspect) -> str:
    """Why, as soon as it is."""
    stub = run.agent.stub()
    wait_for("its next worker to be refused", lambda: status(stub, model.component) == wire.FAILED)
    said = describe(stub, model.component).status_message
    check_sentence(said, model.folder)
    return said


def _running(agent: AgentProcess, model: Suspect) -> int:
    """Starts the model; its worker."""
    known = agent.worker_pids()
    start(agent.stub(), model.component)
    worker = replacement(agent, known)
    wait_until_running(agent.stub(), model.component)
    return worker


VERIFY_AS = """
import os, sys
# What it will need, for the user may not be allowed to read this Python.
import agent.commands.verify, agent.packages.archive, agent.pipeline, encodings.unicode_escape, tabulate
from agent.cli import main
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
sys.exit(main(["verify", sys.argv[1]]))
"""
"""`edge-agent verify` of a package, as a user."""

# --- E10: packages that appear bit by bit, go, or may not be read


@row(
    "E10",
    "a package that is copied slowly, goes while it runs, or may not be read: FAILED, and RUNNING when it is whole",
    unit="copies",
    full=500,
    short=1,
)
def slow_copies(run: Run) -> None:
    run.figures["unreadable files"] = "tried as nobody" if IS_ROOT else "not tried: needs root"
    with folder_for_all() as public, suspect(run) as model:
        make_package(public / "package")
        for number in run.steps():
            _copy_slowly(run.folder / "good", model, manifest_first=number % 2 == 1)
            _go_and_come_back(run, model)
            if IS_ROOT:
                _may_not_be_read(public / "package", ("manifest.json", "model.onnx")[number % 2])
            run.saw("whole at last")


def _copy_slowly(package: Path, model: Suspect, *, manifest_first: bool) -> None:
    """After each half of a file the model is started; it must be refused until the last is there."""
    files = sorted((path for path in package.rglob("*") if path.is_file()), reverse=not manifest_first)
    empty(model.folder)
    model.is_refused()
    for file in files:
        copy, content = model.folder / file.relative_to(package), file.read_bytes()
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(content[: len(content) // 2])
        model.is_refused()
        copy.write_bytes(content)
    model.serves()


def _go_and_come_back(run: Run, model: Suspect) -> None:
    """While it runs; it is wanted, so it runs again."""
    worker, stub = _running(run.agent, model), run.agent.stub()
    shutil.rmtree(model.folder)
    wait_for("the model to leave", lambda: model.component not in names(stub))
    wait_for("its worker to end", lambda: gone(worker))
    shutil.copytree(run.folder / "good", run.folder / "again")
    (run.folder / "again").rename(model.folder)
    wait_for("the model to be there", lambda: model.component in names(stub))
    wait_until_running(stub, model.component)
    answers_right(run.agent, model.component)
    stop(stub, model.component)


def _may_not_be_read(package: Path, name: str) -> None:
    """By another user; root may read everything."""
    (package / name).chmod(0)
    command = [sys.executable, "-c", VERIFY_AS, str(package), str(NOBODY)]
    verified = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    (package / name).chmod(0o644)
    assert verified.returncode == 1, verified.stderr
    assert verified.stderr == f'edge-agent verify: "{name}" in the package: the agent\'s user may not read it.\n'


# --- E11: what a package holds besides its model


class _Writes:
    """Whoever unpickles it writes a file."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self._marker),)


def _extras(marker: Path) -> dict[str, bytes]:
    """Path to content; whoever loads one makes the folder `marker`."""
    array = io.BytesIO()
    np.save(array, np.array([_Writes(marker)], object), allow_pickle=True)
    code = f"import os\nos.mkdir({str(marker)!r})\n".encode()
    pickled = pickle.dumps(_Writes(marker))
    pickles = ("model.pkl", "model.pt", "model.ckpt", "model.onnx.pkl", "self-test/good.rgb.pkl")
    modules = ("sitecustomize", "usercustomize", "numpy", "onnxruntime", "agent", "model", "__init__", "conftest")
    return {
        **{f"{name}.py": code for name in modules},
        **dict.fromkeys(pickles, pickled),
        "numpy/__init__.py": code,
        "extra.pth": code.replace(b"\n", b";"),
        "scores.npy": array.getvalue(),
        "libonnxruntime_providers_shared.so": b"\x7fELF" + bytes(64),
    }


@row(
    "E11",
    "pickles, code and libraries inside a package: never executed, and where they are not listed never opened",
    unit="packages",
    full=500,
    short=2,
)
def code_inside(run: Run) -> None:
    marker = run.folder / "executed"
    extras = _extras(marker)
    pickle.loads(extras["model.pkl"])
    assert marker.is_dir(), "it writes nothing"
    marker.rmdir()
    with suspect(run) as model:
        for number in run.steps():
            put(run.folder / "good", model.folder)
            listed = [add_file(model.folder, path, content) for path, content in extras.items()]
            canary = Canary(*(model.folder / path for path in extras))
            is_listed = number % 2 == 1
            if is_listed:
                manifest = read_package(model.folder).manifest
                rewrite_manifest(model.folder, changed(manifest, files=[*manifest.files, *listed]))
            model.serves()
            assert not marker.exists(), "something was executed"
            assert canary.was_touched() == is_listed  # listed ones are hashed
            canary.close()
            run.saw("listed" if is_listed else "not listed")
