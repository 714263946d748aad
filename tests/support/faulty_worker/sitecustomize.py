"""Breaks worker processes from within, as their environment says. The product has no hooks for it.

Python imports this module by itself where its folder is on PYTHONPATH; it acts only in `python -m agent.workers.loop`.
(`tests.support.faulty_worker` makes the environment.)

FAULT        load-sleep   the worker never finishes loading its model
             load-crash   it dies of SIGSEGV when it begins to load its model
             call-ends    it ends at an image whose first pixel's red is a key of ENDS, in the way that stands there
FAULT_MODEL  the name of a package's folder: only its workers are broken; all where it is not set
FAULT_WHEN   a file: they are broken only while it exists; always where it is not set
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any


def segmentation_fault() -> None:
    ctypes.string_at(0)


def bus_error() -> None:
    """Reads a mapped page that its file no longer has."""
    with tempfile.TemporaryFile() as file:
        file.truncate(mmap.PAGESIZE)
        mapped = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        file.truncate(0)
        mapped[0]


def exit_0() -> None:
    os._exit(0)


def exit_1() -> None:
    os._exit(1)


ENDS = {1: segmentation_fault, 2: os.abort, 3: bus_error, 4: exit_0, 5: exit_1}
"""By the red value of the first pixel."""


def is_on(folder: Path) -> bool:
    """Whether the worker of the package in `folder` is to be broken now."""
    model, when = os.environ.get("FAULT_MODEL"), os.environ.get("FAULT_WHEN")
    return model in (None, folder.name) and (when is None or Path(when).exists())


def break_loading(pipeline: Any, fault: Any) -> None:
    load = pipeline.__init__

    def broken(self: Any, package: Any, *others: Any) -> None:
        if is_on(package.folder):
            fault()
        load(self, package, *others)

    pipeline.__init__ = broken


def break_calls(pipeline: Any) -> None:
    detect = pipeline.detect

    def broken(self: Any, pixels: Any, *others: Any) -> Any:
        red = int(pixels[0, 0, 0])
        if red in ENDS and is_on(self._package.folder):
            ENDS[red]()
        return detect(self, pixels, *others)

    pipeline.detect = broken


def break_worker(fault: str) -> None:
    from agent.pipeline import Pipeline

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # these deaths need no post-mortem
    if fault == "load-sleep":
        break_loading(Pipeline, threading.Event().wait)
    elif fault == "load-crash":
        break_loading(Pipeline, segmentation_fault)
    elif fault == "call-ends":
        break_calls(Pipeline)
    else:
        sys.exit(f"there is no fault {fault!r}")


if "FAULT" in os.environ and sys.orig_argv[1:3] == ["-m", "agent.workers.loop"]:
    break_worker(os.environ["FAULT"])
