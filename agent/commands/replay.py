"""`edge-agent replay SOURCE...`: pictures that the camera client kept, inspected again, and what changed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from agent.commands.options import add_agent, add_root, default_socket

if TYPE_CHECKING:
    from agent.workbench.mask_folder import MaskFolder
    from agent.workbench.replay.captured import CapturedPicture
    from agent.workbench.replay.replay import Replay, Replayed, Unanswered

FOUND_A_CHANGE = 3
"""Exit code where --fail-on found what it looks for."""
NAMED = 10
"""How many pictures without an answer are named on the screen."""
EXAMPLES = """\
examples:
  edge-agent replay kept                                    the agent and the model that answered then
  edge-agent replay kept --model plate-new --pictures seen  another model of the agent; pictures of what changed
  edge-agent replay kept --package plate-1.1.0              a package, without an agent
  edge-agent replay line-1 line-2 --only uncertain          what the cameras were not sure of
  edge-agent replay kept --fail-on verdict --json new.json  for scripts: ends with 3 where a verdict changed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `edge-agent replay`."""
    from agent.workbench.replay.captured import VERDICTS

    parser.description = (
        "Inspects pictures that the camera client kept once more, and tells what changed: verdicts, scores, "
        "thresholds, areas and masks. Nothing is changed in the folder."
    )
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="a folder that the camera client captured into, one that holds several such, or a capture.manifest",
    )
    parser.add_argument(
        "--package", type=Path, metavar="PACKAGE", help="ask this package (folder or ZIP), not an agent"
    )
    parser.add_argument(
        "--model", metavar="COMPONENT", help="ask this model (default: for each picture the one of then)"
    )
    add_agent(parser, "ask the agent at this socket; an agent is asked unless --package is given")
    parser.add_argument(
        "--only",
        action="append",
        choices=VERDICTS,
        help="only pictures of this verdict of the camera client; may be given several times",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.001,
        metavar="X",
        help="scores, areas and the marked part of a picture, 0 to 1, may differ by this (default: %(default)g)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="write contact sheets of what changed, then and now side by side",
    )
    parser.add_argument(
        "--fail-on",
        choices=("verdict", "any"),
        help="end with 3 where a verdict changed, or anything beyond --tolerance",
    )
    add_root(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replays, prints and writes; 0 when done, 1 where a picture got no answer, 3 where --fail-on found a change.

    Raises:
        Refusal: a sentence for the engineer: no captured pictures, no such package, no agent, no room to write.
    """
    from agent.commands.workbench import need

    need("tqdm")

    from agent.workbench.replay.captured import VERDICTS, captured_pictures
    from agent.workbench.replay.replay import Unanswered, outcome

    _check(arguments)
    pictures, unusable = captured_pictures(arguments.sources, arguments.root, arguments.only or VERDICTS)
    with _outputs(arguments) as outputs:
        answers: list[Replayed | Unanswered] = [Unanswered("", str(refusal)) for refusal in unusable]
        answers += _replay(arguments, pictures, outputs.masks)
        replay = outcome(answers)
        # Before anything is printed: whoever reads that may stop reading.
        written = _write(replay, outputs, arguments)
    _print(replay, arguments.tolerance)
    if written:
        print(f"Wrote {', '.join(map(str, written))}")
    if replay.unanswered:
        return 1
    found = {"verdict": replay.flipped, "any": replay.changed}.get(arguments.fail_on, [])
    return FOUND_A_CHANGE if found else 0


@dataclass(frozen=True)
class _Outputs:
    """What is written into: None where nobody has asked for it."""

    json: Path | None
    """Becomes the file of --json."""
    masks: MaskFolder | None
    """For the pictures, and gone with them."""


def _check(arguments: argparse.Namespace) -> None:
    """Whatever can be refused is refused before the work, not after it."""
    from agent.workbench.errors import SettingOutOfRange

    if not 0 <= arguments.tolerance <= 1:
        raise SettingOutOfRange("--tolerance", arguments.tolerance, "0 to 1")
    if arguments.package is not None:
        for option, value in (("--agent", arguments.agent), ("--model", arguments.model)):
            if value is not None:
                raise SettingOutOfRange(option, value, "left out where --package says what answers")


@contextmanager
def _outputs(arguments: argparse.Namespace) -> Iterator[_Outputs]:
    """Opened before the work, so that none is done in vain. Raises OutputNotWritable."""
    from agent.workbench.mask_folder import MaskFolder
    from agent.workbench.output_file import renamed_to, writing_into

    file, masks = None, None
    with ExitStack() as opened:
        if arguments.json:
            file = opened.enter_context(renamed_to(arguments.json, "--json"))
            file.touch()
        if arguments.pictures:
            opened.enter_context(writing_into(arguments.pictures, "--pictures"))
            masks = MaskFolder(Path(opened.enter_context(TemporaryDirectory(prefix=".masks-", dir=arguments.pictures))))
        yield _Outputs(file, masks)


def _replay(
    arguments: argparse.Namespace, pictures: Sequence[CapturedPicture], masks: MaskFolder | None
) -> Iterator[Replayed | Unanswered]:
    from agent.commands.workbench import inspector_of, progress_bar
    from agent.workbench.replay.replay import replay

    socket = None if arguments.package else arguments.agent or default_socket()
    # The models of several cameras, one after the other; one for all pictures where the arguments name it.
    named = arguments.package or arguments.model
    with progress_bar("inspecting", len(pictures)) as bar:
        for model in [named] if named else sorted({picture.model for picture in pictures}):
            its_own = [picture for picture in pictures if named or picture.model == model]
            with inspector_of(model, socket) as inspector:
                yield from replay(inspector, its_own, arguments.tolerance, masks, lambda: bar.update())


def _print(replay: Replay, tolerance: float) -> None:
    from agent.workbench.replay.tables import pictures_table, summary

    print(f"{summary(replay, tolerance)}\n")
    if replay.changed:
        print(f"{pictures_table(replay)}\n")
    problems = [f"{one.name} is left out: {one.why}" if one.name else one.why for one in replay.unanswered]
    problems += [
        f"{one.picture.name}: its mask of then is not compared: {one.mask_problem}"
        for one in replay.replayed
        if one.mask_problem
    ]
    for sentence in problems[:NAMED]:
        print(f"Warning: {sentence}", file=sys.stderr)
    if len(problems) > NAMED:
        print(f"Warning: {len(problems) - NAMED} more; the file of --json names all of them.", file=sys.stderr)


def _write(replay: Replay, outputs: _Outputs, arguments: argparse.Namespace) -> list[Path]:
    """The files that were written."""
    from agent.workbench.replay.result_file import document
    from agent.workbench.replay.sheets import write_sheets

    written: list[Path] = []
    if outputs.json:
        outputs.json.write_bytes(document(replay, arguments.tolerance))
        written.append(arguments.json)
    return [*written, *(write_sheets(replay, arguments.pictures) if arguments.pictures else [])]
