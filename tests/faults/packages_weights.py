"""Row E3: models that keep weights in other files, and name files that are none of theirs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from agent.packages.package import read_package
from tests.faults.packages_support import Canary, has_turn, put, suspect
from tests.faults.row import Run, row
from tests.support.packages import add_file, changed, first_pixel_model, make_package, rewrite_manifest

WHITE = np.float32(255).tobytes()
SECRET = "outside.secret"
AROUND = "<absolute path of the folder around the package>"
ADDRESS = str(1 << 40)
OUT = "no path inside the package"
WEIGHTS_FILE = "w.bin"
LINK = "links are not followed"
LOADING = "could not load the model"


@dataclass(frozen=True)
class Weights:
    """Where a model says that its weights lie, and what the refusal says; nothing where it serves."""

    location: str
    expected: str
    listed: bool = True
    """Whether the manifest lists a file of that name, its weights being there."""
    instead: Callable[[Path, Path], object] | None = None
    """Puts something in the place of that file; its second argument is the file outside."""
    offset: str = "0"
    length: str = "4"


CASES = {
    "beside, listed": Weights(WEIGHTS_FILE, ""),
    "not listed": Weights(WEIGHTS_FILE, "which the manifest does not list", listed=False),
    "up": Weights(f"../{SECRET}", OUT, listed=False),
    "down and up": Weights(f"a/../../{SECRET}", OUT, listed=False),
    "absolute": Weights(f"{AROUND}/{SECRET}", OUT, listed=False),
    "link": Weights(WEIGHTS_FILE, LINK, instead=lambda file, outside: file.symlink_to(outside)),
    "link of a folder": Weights(
        f"a/{SECRET}", LINK, instead=lambda file, outside: _link_folder(file.parent, outside.parent)
    ),
    "another name of a file": Weights(
        WEIGHTS_FILE, "its SHA-256 is", instead=lambda file, outside: os.link(outside, file)
    ),
    "FIFO": Weights(WEIGHTS_FILE, "it is no plain file", instead=lambda file, outside: os.mkfifo(file)),
    "device": Weights(WEIGHTS_FILE, LINK, instead=lambda file, outside: file.symlink_to("/dev/zero")),
    "device by its path": Weights("/dev/zero", OUT, listed=False),
    "address in memory": Weights("*/_ORT_MEM_ADDR_/*", OUT, listed=False, offset=ADDRESS),
    "address, a file of its mark listed": Weights("*/_ORT_MEM_ADDR_/*", OUT, offset=ADDRESS),
    "beyond the end": Weights(WEIGHTS_FILE, LOADING, offset="4096"),
    "before the beginning": Weights(WEIGHTS_FILE, LOADING, offset="-4"),
    "offset that overflows": Weights(WEIGHTS_FILE, LOADING, offset=str(2**64 - 2)),
    "offset that is no number": Weights(WEIGHTS_FILE, LOADING, offset="four"),
    "too long": Weights(WEIGHTS_FILE, LOADING, length=str(2**62)),
    "too short": Weights(WEIGHTS_FILE, LOADING, length="1"),
}
"""The eleven of the plan, and their neighbours."""
READ = "another name of a file"
"""A second name is as good as the first: its hash is read, and tells."""


def _link_folder(folder: Path, to: Path) -> None:
    folder.rmdir()
    folder.symlink_to(to)


@row(
    "E3",
    "weights in other files, by ../, links, devices, addresses, ranges that are none: FAILED, nothing outside is read",
    unit="models",
    full=10_000,
    short=len(CASES),
)
def outside_weights(run: Run) -> None:
    outside = run.folder / SECRET
    outside.write_bytes(WHITE[::-1])  # as long as the weights, and another hash
    canary, names, reads = Canary(outside), list(CASES), 0
    for name in names:
        _make(run.folder / "packages" / str(names.index(name)), CASES[name])
    with suspect(run) as model:
        for number in run.steps():
            name = names[number % len(names)]
            case = CASES[name]
            put(run.folder / "packages" / str(names.index(name)), model.folder)
            if case.instead is not None:
                (model.folder / case.location).unlink()
                case.instead(model.folder / case.location, outside)
            canary.was_touched()  # by us
            model.leads_to(case.expected, through_agent=has_turn(number, len(names)))
            reads += canary.was_touched() and name != READ
    canary.close()
    run.figures["reads outside"] = str(reads)
    assert reads == 0


def package_with_weights(folder: Path) -> None:
    """A good one."""
    _make(folder, CASES["beside, listed"])


def _make(folder: Path, case: Weights) -> None:
    """A package whose model says that a constant lies where the case says."""
    make_package(folder, task="classification", model=_model(case, folder.parent.parent))
    if case.listed:
        manifest = read_package(folder).manifest
        listed = add_file(folder, case.location, WHITE)
        rewrite_manifest(folder, changed(manifest, files=[*manifest.files, listed]))


def _model(case: Weights, around: Path) -> onnx.ModelProto:
    model = first_pixel_model()
    (constant,) = (tensor for tensor in model.graph.initializer if tensor.name == "white")
    constant.ClearField("raw_data")
    constant.ClearField("float_data")
    constant.data_location = TensorProto.EXTERNAL
    location = case.location.replace(AROUND, str(around))
    for key, value in {"location": location, "offset": case.offset, "length": case.length}.items():
        constant.external_data.add(key=key, value=value)
    return model
