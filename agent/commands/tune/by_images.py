"""A threshold from labelled images: inspect them, find the threshold that serves the target, show it, set it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.tune.setting import put_in_force
from agent.commands.tune.subject import NotAComponent, Subject, subject_of
from agent.commands.workbench import need, with_bar
from agent.errors import Refusal
from agent.models.device_threshold import Measured
from agent.workbench.dataset.image_paths import check_root
from agent.workbench.dataset.labelled_images import LabelledImage, check_labels, labelled_images
from agent.workbench.errors import ImageNotInspected
from agent.workbench.tuning import (
    BestF1,
    CostRatio,
    LabelledScores,
    MaxFalseReject,
    MaxMiss,
    Target,
    deciding_score,
    images_needed,
    tuned_threshold,
)

if TYPE_CHECKING:
    from agent.packages.manifest import Combination, Manifest
    from agent.workbench.inspection.inspector import Inspector

ADVISED = 10
"""Good and anomalous images that a test set should have at least (the original service's minimum)."""
NAMED = 3
"""Images that got no answer: how many are named."""


class ImagesOfOneKind(Refusal):
    def __init__(self, source: str, good: int, anomalous: int) -> None:
        super().__init__(
            f"{source} gives {good} good and {anomalous} anomalous images with an answer; a threshold that parts them "
            "needs both. (`edge-agent fit --k` sets one from good images alone.)"
        )


class ScoreDoesNotDecide(Refusal):
    def __init__(self, subject: Subject) -> None:
        super().__init__(
            f"The verdict of {subject} is its mask's alone (decision.combination is 'mask'), so that no threshold of "
            "the score changes it. Package it with another combination to tune it."
        )


class AnotherVersionServes(Refusal):
    """A threshold is worth nothing for another version than the one that gave the scores."""

    def __init__(self, registered: str, answers: str) -> None:
        super().__init__(
            f"Version {registered} is registered, but the agent answered with version {answers}. Its status_message "
            "says why; tune when the version you mean serves."
        )


@dataclass
class Inspected:
    """What the images said."""

    good: list[int] = field(default_factory=list)
    """Scores that decide, in ten-thousandths."""
    anomalous: list[int] = field(default_factory=list)
    unlabelled: list[Path] = field(default_factory=list)
    unanswered: list[tuple[Path, str]] = field(default_factory=list)
    """With the reason."""


def tune(arguments: argparse.Namespace, registry: Path) -> int:
    """Inspects, prints and, unless `--dry-run` or a bare package, sets; 0 when done."""
    with subject_of(arguments.model, registry) as subject:
        if arguments.agent and subject.record is None:
            raise NotAComponent(arguments.model)
        combination = _combination(subject.package.manifest)
        if combination == "mask":
            raise ScoreDoesNotDecide(subject)
        check_root(arguments.root, arguments.source)
        images = labelled_images(arguments.source, arguments.root)
        check_labels(images)
        with _inspector(arguments, subject) as inspector:
            version = subject.version if arguments.agent else None
            inspected = _inspect(images, inspector, combination, version)
        _say_what_was_left_out(inspected)
        if not inspected.good or not inspected.anomalous:
            raise ImagesOfOneKind(arguments.source, len(inspected.good), len(inspected.anomalous))

        scores = LabelledScores(inspected.good, inspected.anomalous)
        target = _target(arguments)
        threshold = arguments.threshold if target is None else tuned_threshold(scores, target)
        _show(subject, scores, threshold)
        _warn(scores, target, threshold)
        if subject.record is None:
            print(f"Nothing is set: register the package, then edge-agent tune COMPONENT --threshold {threshold:.4f}")
        elif arguments.dry_run:
            print("Nothing is set: this was a dry run.")
        else:
            outcome = scores.outcome(threshold)
            measured = Measured(outcome.good, outcome.anomalous, outcome.false_rejects, outcome.misses)
            asked = "by hand" if target is None else str(target)
            source = str(Path(arguments.source).absolute())
            put_in_force(subject, subject.record, threshold, registry, target=asked, measured=measured, images=source)
    return 0


def _target(arguments: argparse.Namespace) -> Target | None:
    """None: the threshold itself was given."""
    if arguments.max_false_reject is not None:
        return MaxFalseReject(arguments.max_false_reject)
    if arguments.max_miss is not None:
        return MaxMiss(arguments.max_miss)
    if arguments.cost_ratio is not None:
        return CostRatio(*arguments.cost_ratio)
    return BestF1() if arguments.best_f1 else None


def _combination(manifest: Manifest) -> Combination:
    # Boxes paint the mask where they reach the very threshold, so that score and mask say the same.
    return "class" if manifest.outputs.boxes else manifest.decision.combination


@contextmanager
def _inspector(arguments: argparse.Namespace, subject: Subject) -> Iterator[Inspector]:
    # Imported late: one needs a runtime, the other gRPC.
    if arguments.agent and subject.record:
        from agent.workbench.inspection.agent_inspector import agent_inspector

        with agent_inspector(subject.record.component, arguments.agent, False, _say) as through_agent:
            yield through_agent
    else:
        from agent.workbench.inspection.package_inspector import PackageInspector

        yield PackageInspector(subject.package)


def _inspect(
    images: list[LabelledImage], inspector: Inspector, combination: Combination, version: str | None
) -> Inspected:
    """`version`: of which each answer has to be; an agent may get an update at any time."""
    need("tqdm")
    inspected = Inspected()
    for image in with_bar(images, "inspecting"):
        if image.is_anomalous is None:
            inspected.unlabelled.append(image.path)
            continue
        try:
            detection = inspector.inspect(image.pixels)
        except ImageNotInspected as refusal:
            inspected.unanswered.append((image.path, str(refusal)))
            continue
        if version is not None and inspector.model.version != version:
            raise AnotherVersionServes(version, inspector.model.version)
        # Beside background there is a region for every type that the mask shows.
        score = deciding_score(detection.score, len(detection.regions) > 1, combination)
        (inspected.anomalous if image.is_anomalous else inspected.good).append(score)
    return inspected


def _say_what_was_left_out(inspected: Inspected) -> None:
    if inspected.unlabelled:
        _say(f"Left out, since they have no label: {len(inspected.unlabelled)} images.")
    for path, reason in inspected.unanswered[:NAMED]:
        _say(f"{path} got no answer and is left out: {reason}")
    if len(inspected.unanswered) > NAMED:
        _say(f"{len(inspected.unanswered) - NAMED} more got no answer.")


def _show(subject: Subject, scores: LabelledScores, threshold: float) -> None:
    from tabulate import tabulate

    old, new = scores.outcome(subject.in_force), scores.outcome(threshold)
    print(f"{subject}: {new.good} good and {new.anomalous} anomalous images\n")
    rows = [
        ("threshold", f"{subject.in_force:.4f}", f"{threshold:.4f}"),
        ("false rejects", _share(old.false_rejects, old.good), _share(new.false_rejects, new.good)),
        ("misses", _share(old.misses, old.anomalous), _share(new.misses, new.anomalous)),
        ("precision", _figure(old.precision), _figure(new.precision)),
        ("recall", _figure(old.recall), _figure(new.recall)),
        ("F1", _figure(old.f1), _figure(new.f1)),
    ]
    print(tabulate(rows, headers=["", "now", "tuned"], disable_numparse=True), end="\n\n")


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.1%})"


def _figure(value: Fraction) -> str:
    return f"{float(value):.4f}"


def _warn(scores: LabelledScores, target: Target | None, threshold: float) -> None:
    outcome = scores.outcome(threshold)
    if target is not None and not target.is_met(outcome):
        _say(f"No threshold gives {target} on these images; this one comes nearest.")
    if scores.is_above_all(threshold):
        _say("Warning: no image reaches this threshold; it calls everything normal.")
    if scores.is_below_all(threshold):
        _say("Warning: every image reaches this threshold; it calls everything anomalous.")
    if min(outcome.good, outcome.anomalous) < ADVISED:
        _say(f"Warning: use at least {ADVISED} good and {ADVISED} anomalous images; single ones decide otherwise.")
    if isinstance(target, MaxFalseReject):
        _warn_of_granularity(target, outcome.good, "good")
    elif isinstance(target, MaxMiss):
        _warn_of_granularity(target, outcome.anomalous, "anomalous")


def _warn_of_granularity(target: MaxFalseReject | MaxMiss, count: int, kind: str) -> None:
    needed = images_needed(target.limit)
    if count < needed:
        _say(f"With {count} {kind} images {target} means none at all; it takes {needed} to allow one.")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
