"""What commands of the workbench have in common: its libraries, asked for in a sentence, and progress bars.

Bars are drawn on stderr and go away at their end; where that is no terminal there are none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

    from agent.workbench.inspection.inspector import Inspector

Item = TypeVar("Item")


def need(*libraries: str) -> None:
    """Raises MissingWorkbench where one of `libraries` is not installed: a sentence instead of a traceback."""
    from agent.workbench.errors import MissingWorkbench

    for library in libraries:
        try:
            import_module(library)
        except ImportError as error:
            raise MissingWorkbench(error.name or library) from None


def inspector_of(
    model: str | Path, socket: str | None, shared_memory: bool = False
) -> AbstractContextManager[Inspector]:
    """What inspects with `model`: a package, or with `socket` a component of the agent that listens there.

    An agent's model is started where it does not run, and stderr is told of it. Raises as `agent_inspector` and
    `package_inspector` do, on entering.
    """
    from agent.workbench.inspection.agent_inspector import agent_inspector
    from agent.workbench.inspection.package_inspector import package_inspector

    if socket is None:
        return package_inspector(Path(model))
    return agent_inspector(str(model), socket, shared_memory, lambda told: print(told, file=sys.stderr))


def with_bar(items: Iterable[Item], what: str) -> Iterable[Item]:
    """Hands on `items`, images, and shows how far it is."""
    from tqdm import tqdm

    return tqdm(items, desc=what, unit="image", file=sys.stderr, leave=False, disable=None)


def progress_bar(what: str, total: int | None = None, unit: str = "image") -> tqdm[Any]:
    """A bar that is moved by whoever has it. `total`: None where it is not known yet."""
    from tqdm import tqdm

    return tqdm(desc=what, total=total, unit=unit, file=sys.stderr, leave=False, disable=None)


class Bars:
    """One progress bar after the other, for work in steps that report how far they are."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._what = ""

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def show(self, what: str, done: int, count: int) -> None:
        if what != self._what or self._bar is None:
            self._close()
            self._what, self._bar = what, progress_bar(what, count)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
