"""Power cuts while a record, the list of wanted models or a TensorRT engine is replaced; in a process of its own, which
may fork.

    python -m tests.faults.surroundings_cuts FOLDER COUNT

Kills a process at each call that `agent.atomic_file` makes of the system, COUNT times in all, and reads what is
left as the agent would. What a disk may have lost besides (all that was not made last) is told from the order of the
calls. Prints how often which content was found.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agent import atomic_file
from agent.backends.engine_cache import EngineCache, EngineKey
from agent.models.registry import Record, Registry, write_record
from agent.models.wanted import WantedModels

STEPS = ("open", "write", "fsync", "close", "replace")
"""The calls that replacing a file is made of."""
COMPONENT = "model"
OLD, NEW = b"what was there", b"what is to be there"


class Stepwise:
    """`os` for `atomic_file`, which tells of every step before it is done."""

    def __init__(self, before: Callable[[str, tuple[Any, ...]], None]) -> None:
        self._before = before

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in STEPS:
            return function

        def step(*arguments: Any) -> Any:
            self._before(name, arguments)
            # A process that is killed loses nothing it has written: no need to wait for the disk.
            return None if name == "fsync" else function(*arguments)

        return step


def watch_steps(before: Callable[[str, tuple[Any, ...]], None] = lambda *_: None) -> None:
    """From now on, `before` is told of every step."""
    atomic_file.os = Stepwise(before)


def is_killed_at(last: int, write: Callable[[], None]) -> bool:
    """Whether `write`, in a process that dies at step `last` (in the midst of it, if it writes), came that far."""
    child = os.fork()
    if child == 0:
        steps = itertools.count()

        def before(name: str, arguments: tuple[Any, ...]) -> None:
            if next(steps) == last:
                if name == "write":
                    descriptor, content = arguments
                    os.write(descriptor, content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)

        watch_steps(before)
        write()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, status
    return os.WIFSIGNALED(status)


class RecordOnDisk:
    """A registry's record; its content is the version."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, content: str) -> None:
        write_record(self._folder, Record(COMPONENT, content, str(self._folder)))

    def read(self) -> str:
        return Registry(self._folder).records()[COMPONENT].version


class WantedOnDisk:
    """The list of wanted models; its content is the model that was added last."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "wanted"
        self._file.write_text("[]")

    def write(self, content: str) -> None:
        WantedModels(self._file).add(content)

    def read(self) -> str:
        components = json.loads(self._file.read_text())
        assert all(component in WantedModels(self._file) for component in components)
        return max(components, default="")


class EngineOnDisk:
    """An engine of the cache; what is torn is not there, and built again."""

    KEY = EngineKey("a" * 64, "TensorRT 10.3.0", "Orin", "8.7", "12.6", "fp16", True, (1, 8, 8, 3), ("s",), 1 << 30, 3)

    def __init__(self, folder: Path) -> None:
        self._cache = EngineCache(folder / "engines", 1 << 20)

    def write(self, content: str) -> None:
        self._cache.store(self.KEY, memoryview(content.encode()), "", 0.0)

    def read(self) -> str:
        engine = self._cache.find(self.KEY)
        assert engine is not None, "it was there before"
        with self._cache.turn_to_build():  # removes what was left by those that were killed
            pass
        return bytes(engine).decode()


def kill_at_every_step(folder: Path) -> Iterator[str]:
    """What was found after each kill."""
    numbers = itertools.count()
    for kind in (RecordOnDisk, WantedOnDisk, EngineOnDisk):
        on_disk = kind(folder)
        for step in itertools.count():
            before, new = f"{next(numbers):04}", f"{next(numbers):04}"
            on_disk.write(before)
            was_killed = is_killed_at(step, lambda on_disk=on_disk, new=new: on_disk.write(new))
            found = on_disk.read()
            if not was_killed:
                assert found == new, "written to the end, and not there"
                break
            assert found in (before, new), f"killed at step {step}: {found!r} is neither {before!r} nor {new!r}"
            yield "old after a kill" if found == before else "new after a kill"
    for left in folder.glob(".*"):  # temporary files of those that were killed
        left.unlink()


def calls_of_a_replacement(folder: Path) -> list[str]:
    """The steps of `replace_file`, as in "fsync file"."""
    calls: list[str] = []

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        on_folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
        calls.append(f"{name} folder" if on_folder else f"{name} file")

    watch_steps(before)
    atomic_file.replace_file(folder / "replaced", NEW)
    watch_steps()
    return calls


def contents_after_power_cut(calls: Sequence[str]) -> set[bytes]:
    """What may lie at the path if the power goes after `calls`: what is not made last may be lost, whole or in part."""
    written, is_renamed, is_last = {b""}, False, False
    for call in calls:
        if call == "write file":
            written = {b"", NEW[: len(NEW) // 2], NEW}
        elif call == "fsync file":
            written = {max(written, key=len)}
        elif call == "replace file":
            is_renamed = True
        elif call == "fsync folder":
            is_last = is_renamed
    contents = set() if is_last else {OLD}
    return contents | written if is_renamed else contents


def cut_power_at_every_step(folder: Path) -> Iterator[str]:
    calls = calls_of_a_replacement(folder)
    for count in range(len(calls) + 1):
        contents = contents_after_power_cut(calls[:count])
        assert contents <= {OLD, NEW}, f"torn after {calls[:count]}"
        yield "or ".join(sorted("old " if content == OLD else "new " for content in contents)) + "after a power cut"
    assert contents_after_power_cut(calls) == {NEW}, "nothing makes the rename last"
    # The negative control: this model of a disk does tear files that nobody makes last.
    assert not contents_after_power_cut([call for call in calls if call != "fsync file"]) <= {OLD, NEW}


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    found = Counter[str]()
    watch_steps()
    while found.total() < count:
        found.update(kill_at_every_step(folder))
        found.update(cut_power_at_every_step(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
