"""`edge-agent evaluate PACKAGE SOURCE`: how good a model is, on labelled images."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import add_agent, add_root

if TYPE_CHECKING:
    from agent.workbench.dataset.labelled_images import LabelledImage
    from agent.workbench.evaluation.client_rules import ClientRules
    from agent.workbench.evaluation.evaluation import Evaluation
    from agent.workbench.inspection.inspector import Inspector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `edge-agent evaluate`."""

    parser.description = (
        "Puts labelled images through a model and tells how good it is: precision, recall, F1, ROC AUC, average "
        "precision, and per anomaly type how well masks fit. Writes the figures, the answers and pictures of both."
    )
    parser.add_argument("model", metavar="MODEL", help="a package (folder or ZIP); with --agent, a component's name")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with 'normal/' and 'anomaly/' (and 'masks/'), or 'good/' and a folder for each kind of defect; "
        "a folder or quoted glob whose file names begin with these words; or a manifest (JSON Lines)",
    )
    add_root(parser)
    add_agent(parser, "ask a running agent, as a camera application does")
    parser.add_argument("--shared-memory", action="store_true", help="with --agent: images and masks in shared memory")
    parser.add_argument(
        "--output", type=Path, default=Path("evaluation"), metavar="DIR", help="where files go (default: %(default)s)"
    )
    parser.add_argument("--name", help="what the files are called after (default: the model's name and version)")
    parser.add_argument("--compare", metavar="OTHER", help="a second MODEL on the same images, side by side")
    rules = parser.add_argument_group("a client's own rules: what it would reject, as a table of its own")
    rules.add_argument("--reject-confidence", type=float, metavar="X", help="anomalous with at least this confidence")
    rules.add_argument(
        "--reject-area",
        action="append",
        default=[],
        metavar="TYPE=FRACTION",
        help="... and this type covers more of the image; may be given several times",
    )
    rules.add_argument("--reject-types", type=int, metavar="N", help="... or it shows more than N anomaly types")


def run(arguments: argparse.Namespace) -> int:
    """Evaluates, prints and writes; 0 where every labelled image got an answer, else 1.

    Raises:
        Refusal: a sentence for the engineer: no labelled images, no such package, no agent, no room to write.
    """
    from agent.commands.workbench import inspector_of, need

    need("matplotlib", "sklearn", "tqdm")

    from agent.workbench.dataset.image_paths import check_root
    from agent.workbench.dataset.labelled_images import labelled_images
    from agent.workbench.errors import SettingOutOfRange
    from agent.workbench.evaluation.tables import comparison
    from agent.workbench.packaging.naming import check_name

    # Whatever can be refused is refused before the work, not after it.
    if arguments.name is not None:
        check_name(arguments.name)
    rules = _client_rules(arguments)
    if arguments.shared_memory and arguments.agent is None:
        raise SettingOutOfRange("--shared-memory", "given", "given together with --agent")
    check_root(arguments.root, arguments.source)
    images = labelled_images(arguments.source, arguments.root)

    with ExitStack() as stack:
        models = [arguments.model] if arguments.compare is None else [arguments.model, arguments.compare]
        inspectors = [
            stack.enter_context(inspector_of(model, arguments.agent, arguments.shared_memory)) for model in models
        ]
        names = _names(inspectors, arguments.name)
        evaluations = [
            _evaluate(inspector, images, arguments.output, name, rules)
            for inspector, name in zip(inspectors, names, strict=True)
        ]
    if len(evaluations) == 2:
        print(f"{comparison(*evaluations)}\n")
    print("Look first at the pictures named Mistakes-... and Report-...")
    return 1 if any(evaluation.refused for evaluation in evaluations) else 0


def _client_rules(arguments: argparse.Namespace) -> ClientRules | None:
    """The rules that were given; None where none were. Raises SettingOutOfRange."""
    from agent.workbench.errors import SettingOutOfRange
    from agent.workbench.evaluation.client_rules import ClientRules

    confidence, types = arguments.reject_confidence, arguments.reject_types
    if confidence is not None and not 0 <= confidence <= 1:
        raise SettingOutOfRange("--reject-confidence", confidence, "0 to 1")
    if types is not None and types < 0:
        raise SettingOutOfRange("--reject-types", types, "0 or more")
    areas = {}
    for given in arguments.reject_area:
        name, _, limit = given.rpartition("=")
        try:
            areas[name] = float(limit)
        except ValueError:
            name = ""
        if not name or not 0 <= areas[name] <= 1:
            raise SettingOutOfRange("--reject-area", given, "TYPE=FRACTION, the fraction 0 to 1, such as scratch=0.01")
    if confidence is None and types is None and not areas:
        return None
    return ClientRules(confidence or 0.0, areas, types)


def _evaluate(
    inspector: Inspector, images: Sequence[LabelledImage], output: Path, name: str, rules: ClientRules | None
) -> Evaluation:
    """The evaluation of one model, printed, and written to files called after `name`."""
    from agent.commands.workbench import progress_bar
    from agent.workbench.evaluation.evaluation import evaluate
    from agent.workbench.output_file import writing_into

    labelled = sum(image.is_anomalous is not None for image in images)
    with (
        writing_into(output),
        progress_bar("inspecting", labelled) as bar,
    ):
        evaluation = evaluate(inspector, images, output / f"masks-{name}", lambda: bar.update())
    _print(evaluation, rules)
    with writing_into(output):
        files = _write(evaluation, output, name)
    print(f"Wrote {', '.join(map(str, files))}\n")
    return evaluation


def _print(evaluation: Evaluation, rules: ClientRules | None) -> None:
    from agent.workbench.evaluation import tables

    print(f"{tables.summary(evaluation)}\n")
    if evaluation.classes:
        print(f"{tables.types_table(evaluation)}\n")
    if all(answer.is_right for answer in evaluation.answers):
        print("Every verdict is right.\n")
    else:
        print(f"{tables.mistakes_table(evaluation)}\n")
    if rules is not None:
        print(f"{tables.client_table(evaluation, rules)}\n")
    for note in evaluation.notes:
        print(f"Note: {note}")
    for sentence in [*tables.left_out(evaluation), *evaluation.warnings]:
        print(f"Warning: {sentence}", file=sys.stderr)


def _write(evaluation: Evaluation, output: Path, name: str) -> list[Path]:
    from agent.workbench.evaluation.mistakes import mistakes_sheet
    from agent.workbench.evaluation.report import report
    from agent.workbench.evaluation.result_files import write_result_files
    from agent.workbench.evaluation.tables import title

    files = write_result_files(evaluation, output, name, datetime.now(timezone.utc))
    page, sheet = output / f"Report-{name}.png", output / f"Mistakes-{name}.png"
    report(evaluation, title(evaluation)).savefig(page)
    mistakes_sheet(evaluation, title(evaluation)).save(sheet)
    masks = output / f"masks-{name}"
    return [*files, page, sheet, *([masks] if masks.is_dir() else [])]


def _names(inspectors: Sequence[Inspector], given: str | None) -> list[str]:
    """What the files of each model are called after: `given` for the first, else name and version; no name twice."""
    names: list[str] = []
    for inspector in inspectors:
        model = inspector.model
        own = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{model.name}-{model.version}").strip("-._")[:100] or "model"
        name = own if names or given is None else given
        names.append(name if name not in names else f"{name}-2")
    return names
