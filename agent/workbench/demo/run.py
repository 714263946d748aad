"""The demo from its first step to its last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.workbench.demo.pictures import draw_pictures, folders_to_inspect
from agent.workbench.demo.report import Inspected, read_answers, write_sheet
from agent.workbench.demo.steps import edge_agent, sample_client, serving
from agent.workbench.errors import NotADemoFolder, PicturesInOutput

MARKER = ".edge-agent-demo"
"""Lies in a folder that a demo wrote: only such a folder is cleared for the next one."""
COMPONENT = "demo-part"
SHEET = "contact-sheet.png"


def run_demo(
    images: Path | None, output: Path, fit_options: Sequence[str], progress: Callable[[int, int], None]
) -> list[Inspected]:
    """The whole way; all that it makes lies in `output`, one picture of it all as `contact-sheet.png`.

    `images`: the user's photographs, good ones and optionally `test/`; None draws parts, telling `progress` how many of
    how many are drawn. `fit_options` go to `edge-agent fit`.

    Raises:
        PicturesInOutput: the photographs lie inside `output`.
        NotADemoFolder: something that is no demo's lies at `output`.
        DemoStepFailed: a step ended with an error, which it has printed.
    """
    if images is not None and output.resolve() in (images.resolve(), *images.resolve().parents):
        raise PicturesInOutput(images, output)  # clearing the output would delete them
    _prepare(output)
    if images is None:
        images = output / "pictures"
        draw_pictures(images, progress)
    here = os.path.relpath  # what is shown is meant to be typed
    package, registry, answers = here(output / "package"), here(output / "registry"), here(output / "answers.jsonl")
    edge_agent("fit", here(images), "--name", COMPONENT, "--output", package, *fit_options)
    edge_agent("models", "register", package, "--component", COMPONENT, "--registry", registry)
    with serving(registry, output / "agent.log") as socket:
        where = ["--socket", socket, "--shared-memory"]
        outputs = ["--overlays", here(output / "overlays"), "--json", answers]
        sample_client(COMPONENT, *map(here, folders_to_inspect(images)), *where, *outputs, "--stop")
    inspected = read_answers(output / "answers.jsonl", images.resolve())
    write_sheet(inspected, output / SHEET)
    return inspected


def _prepare(folder: Path) -> None:
    """An empty folder for the demo; an earlier demo's is cleared, anybody else's refused."""
    if folder.exists() and not (folder / MARKER).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise NotADemoFolder(folder)
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
