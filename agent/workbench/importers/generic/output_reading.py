"""How a graph's outputs are read: activation, normal classes, labels and decision, as the manifest says them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agent.packages.manifest import (
    Activation,
    Calibration,
    Combination,
    Decision,
    Label,
    LinearCalibration,
    LogisticCalibration,
    NoCalibration,
    Outputs,
)
from agent.workbench.errors import BadSource, SettingOutOfRange
from agent.workbench.importers.class_names import guessed_normal_ids, listed, normal_ids, painted_labels
from agent.workbench.importers.generic.output_roles import Output, Roles
from agent.workbench.importers.graphs.edit import GraphEdit
from agent.workbench.packaging.draft import background_and

Task = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class OutputOptions:
    """What was asked for of outputs and decision; None or empty where nothing was."""

    task: Task | None = None
    named: dict[str, str] = field(default_factory=dict)
    """Role (score, class_scores, anomaly_map, class_mask) to output; where any is given none is guessed."""
    activation: Activation | None = None
    classes: Sequence[str] = ()
    normal: Sequence[str] = ()
    """Names or indices."""
    threshold: float | None = None
    pixel_threshold: float | None = None
    calibration: Calibration | None = None
    combination: Combination | None = None


@dataclass(frozen=True)
class Reading:
    """What the manifest says of a graph's outputs."""

    task: Task
    outputs: Outputs
    decision: Decision
    labels: Sequence[Label]
    notes: Sequence[str]
    """What was guessed, a sentence each, with the option that says otherwise."""


def read_outputs(source: Path, edit: GraphEdit, roles: Roles, wanted: OutputOptions) -> Reading:
    """The manifest's words for `roles`; where they need it, nodes are added behind the graph by `edit`.

    Raises:
        BadSource: the outputs do not make a score in 0..1, or too many labels.
        SettingOutOfRange: an option is wrong, or one is needed.
    """
    return _Reader(source, edit, roles, wanted).reading()


class _Reader:
    """Fills in one reading, output by output."""

    def __init__(self, source: Path, edit: GraphEdit, roles: Roles, wanted: OutputOptions) -> None:
        self._source, self._edit, self._wanted = source, edit, wanted
        self._task: Task = wanted.task or ("segmentation" if roles.mask else "classification")
        if self._task == "segmentation" and roles.mask is None:
            raise SettingOutOfRange("--task", "segmentation", "classification: the graph has no map and no mask")
        self._scored_apart = roles.score is not None or roles.class_scores is not None
        """Whether an output other than map and mask makes the score."""
        if self._task == "classification" and self._scored_apart:
            roles = Roles(score=roles.score, class_scores=roles.class_scores)
        self._roles = roles
        self._fields: dict[str, Any] = {}
        self._labels: list[Label] = []
        self._notes: list[str] = []
        self._threshold = 0.5 if wanted.threshold is None else wanted.threshold
        self._pixel_threshold: float | None = None

    def reading(self) -> Reading:
        roles, wanted = self._roles, self._wanted
        self._check_options()
        if roles.score is not None:
            self._read_score(roles.score)
        elif roles.class_scores is not None:
            self._read_class_scores(roles.class_scores)
        if roles.anomaly_map is not None:
            self._read_anomaly_map(roles.anomaly_map)
        elif roles.class_mask is not None:
            self._read_class_mask(roles.class_mask, roles.class_mask.name)
        elif roles.class_numbers is not None:
            self._read_class_numbers(roles.class_numbers)
        self._note_decision()
        decision = Decision(
            threshold=self._threshold,
            pixel_threshold=self._threshold if self._pixel_threshold is None else self._pixel_threshold,
            calibration=wanted.calibration or NoCalibration(),
            combination=wanted.combination or "class",
        )
        # A classification has no mask to name labels for, but a class mask that scores it tells by them what is normal.
        labels = self._labels if self._task == "segmentation" or "class_mask" in self._fields else []
        return Reading(self._task, Outputs(**self._fields), decision, labels, self._notes)

    def _check_options(self) -> None:
        roles, wanted = self._roles, self._wanted
        if wanted.pixel_threshold is not None and roles.anomaly_map is None:
            raise SettingOutOfRange("--pixel-threshold", wanted.pixel_threshold, "left out: there is no anomaly map")
        if wanted.combination not in (None, "class") and self._task != "segmentation":
            raise SettingOutOfRange("--combination", repr(wanted.combination), "class: only segmentation has a mask")
        if wanted.activation == "softmax" and not (roles.class_scores or roles.class_mask):
            raise SettingOutOfRange("--activation", "softmax", "none or sigmoid: no output has several classes")

    # One number per image or pixel ----------------------------------------------------------------------------------

    def _read_score(self, output: Output) -> None:
        inverted = self._is_normality(output)
        self._fields["score"] = self._probability(output, inverted, makes_score=True)
        meaning = "how normal the image is" if inverted else "how anomalous the image is"
        self._notes.append(f"Output {output} says {meaning} (--score OUTPUT, --normal 0 or 1).")

    def _read_anomaly_map(self, output: Output) -> None:
        makes_score = not self._scored_apart
        inverted = makes_score and self._is_normality(output)
        name = self._probability(output, inverted, makes_score)
        self._fields["anomaly_map"] = name
        made = ", and its highest value the score" if makes_score else ""
        self._notes.append(f"Output {output} is the anomaly map{made} (--anomaly-map OUTPUT).")
        self._pixel_threshold = self._pixel_threshold_of(output, name, makes_score)
        names = list(self._wanted.classes)
        normal = self._single_normal_ids() or [0]
        anomaly = names[0] if len(names) == 1 else names[1 - normal[0]] if len(names) == 2 else "anomaly"
        self._labels = background_and(anomaly)

    def _pixel_threshold_of(self, output: Output, name: str, makes_score: bool) -> float:
        if self._wanted.pixel_threshold is not None:
            return self._wanted.pixel_threshold
        if makes_score:
            return raw_threshold(self._threshold, self._wanted.calibration or NoCalibration())
        if name == output.name and not output.in_0_to_1:
            raise SettingOutOfRange(
                "--pixel-threshold",
                "not given",
                f"the value from which pixels of {output} are anomalous: it gave {output.range}",
            )
        return self._threshold

    def _probability(self, output: Output, inverted: bool, makes_score: bool) -> str:
        """The tensor that says it in 0..1, or in the unit of the calibration."""
        calibrated = makes_score and self._wanted.calibration is not None
        is_logit = not output.is_bounded and (output.lowest < -1e-6 or "logit" in output.name.lower())
        sigmoid = self._wanted.activation == "sigmoid" or (
            self._wanted.activation is None and is_logit and not calibrated
        )
        if sigmoid:
            if self._wanted.activation is None:
                self._notes.append(
                    f"{output.name} gave {output.range}, so it is taken for a logit and its sigmoid is put behind the "
                    f"graph (--activation none, with --calibration)."
                )
            return self._edit.probability(output.name, inverted)
        if makes_score and not calibrated:
            self._refuse_out_of_range(output)
        return self._edit.opposite(output.name) if inverted else output.name

    def _refuse_out_of_range(self, output: Output) -> None:
        """A score is in 0..1; what the graph gives beyond would be cut off without a word."""
        if not output.in_0_to_1:
            raise BadSource(
                self._source,
                f"its score comes from {output}, which gave {output.range}, and a score is in 0..1",
                "give --activation sigmoid if that is a logit, or --calibration linear:CENTER,RANGE, where CENTER is "
                "the value that becomes 0.5 and RANGE what lies between 0 and 1",
            )
        if not output.is_bounded:
            self._notes.append(
                f"Nothing in the graph keeps {output.name} in 0..1; it gave {output.range}. Values beyond are clipped: "
                f"if there are such, give --calibration, or --activation sigmoid if it is a logit."
            )

    def _is_normality(self, output: Output) -> bool:
        """Whether a single value is the probability of the normal class: that of index 1, of two."""
        return self._single_normal_ids() == [1]

    def _single_normal_ids(self) -> list[int]:
        if self._roles.class_mask or self._roles.class_numbers:  # the options are about its classes
            return []
        names = list(self._wanted.classes)
        if len(names) > 2:
            raise SettingOutOfRange("--classes", listed(names), "one or two names: the graph tells two apart")
        if self._wanted.normal:
            return normal_ids(self._wanted.normal, names, 2)
        return guessed_normal_ids(names)

    # One number per class -------------------------------------------------------------------------------------------

    def _read_class_scores(self, output: Output) -> None:
        count = math.prod(output.per_image)
        names = self._names_for(count, output, others=self._roles.class_mask)
        ids = self._class_normal_ids(names, count, output)
        anomalous = [index for index in range(count) if index not in ids]
        activation = self._class_activation(output)
        if self._may_exceed_1(output, activation) and len(anomalous) > 1:
            self._read_highest(output, anomalous, activation)
            return
        if activation == "none" and self._wanted.calibration is None:
            self._refuse_out_of_range(output)
        self._fields |= {"class_scores": output.name, "class_activation": activation, "normal_class_ids": ids}
        self._notes.append(
            f"Output {output} is one number per class, {_activated(activation)}; the score is the sum over those that "
            f"are not normal (--class-scores OUTPUT, --activation)."
        )

    def _class_normal_ids(self, names: Sequence[str], count: int, output: Output) -> list[int]:
        if self._wanted.normal:
            return normal_ids(self._wanted.normal, names, count)
        ids = guessed_normal_ids(names)
        if not ids:
            known = f" ({listed(names)})" if names else ""
            raise SettingOutOfRange(
                "--normal", "not given", f"the name or index of each normal class of the {count}{known} in {output}"
            )
        self._notes.append(f"Normal: {listed([names[index] for index in ids])} (--normal).")
        return ids

    def _read_class_mask(self, output: Output, name: str) -> None:
        count = output.per_image[0] if name == output.name else len(self._wanted.classes)
        names = self._names_for(count, output, others=self._roles.class_scores) or _default_names(count)
        ids = self._mask_normal_ids(names, count)
        painted, self._labels = painted_labels(self._source, names, ids, "--classes")
        self._fields |= {"class_mask": name, "mask_labels": painted}
        if name != output.name:  # made of class numbers: 1 where a pixel is of the class
            return
        activation = self._class_activation(output)
        self._fields["mask_activation"] = activation
        self._notes.append(
            f"Output {output} is one number per class and pixel, {_activated(activation)} (--class-mask OUTPUT)."
        )
        if not self._scored_apart:
            self._score_by_mask(output, activation, [index for index in range(count) if index not in ids])

    def _score_by_mask(self, output: Output, activation: Activation, anomalous: list[int]) -> None:
        if self._may_exceed_1(output, activation) and len(anomalous) > 1:
            self._read_highest(output, anomalous, activation)
            return
        if activation == "none" and self._wanted.calibration is None:
            self._refuse_out_of_range(output)
        self._notes.append("The score is the highest probability of an anomaly in any pixel.")

    def _read_class_numbers(self, output: Output) -> None:
        if len(self._wanted.classes) < 2:
            raise SettingOutOfRange(
                "--classes",
                "not given",
                f"the names of all classes: {output} gives their numbers, up to "
                f"{int(output.highest)} for the pictures tried, and does not tell how many there are",
            )
        if output.highest >= len(self._wanted.classes):
            raise SettingOutOfRange(
                "--classes",
                listed(self._wanted.classes),
                f"at least {int(output.highest) + 1} names: {output} gave {int(output.highest)}",
            )
        name = self._edit.one_hot(output.name, output.values[0].ndim, len(self._wanted.classes))
        self._read_class_mask(output, name)
        self._notes.append(f"Output {output} is the class of each pixel (--class-mask OUTPUT).")
        if not self._scored_apart:
            self._notes.append("The score is 1 where any pixel is of an anomalous class, else 0.")

    def _mask_normal_ids(self, names: Sequence[str], count: int) -> list[int]:
        if self._wanted.normal and self._roles.class_scores is None:
            return normal_ids(self._wanted.normal, names, count)
        ids = guessed_normal_ids(names)
        if ids:
            self._notes.append(f"Background of the mask: {listed([names[index] for index in ids])} (--normal).")
            return ids
        self._notes.append(f"Background of the mask: the first class, {names[0]} (--normal).")
        return [0]

    def _names_for(self, count: int, output: Output, others: Output | None) -> list[str]:
        """The given names if they are for this output; none where they are for the other one with classes."""
        names = list(self._wanted.classes)
        if not names or len(names) == count:
            return names
        if others is not None and len(names) in others.per_image[:1]:
            return []
        raise SettingOutOfRange("--classes", f"{len(names)} names", f"{count}: output {output} has {count} classes")

    def _class_activation(self, output: Output) -> Activation:
        if self._wanted.activation is not None:
            return self._wanted.activation
        return "none" if output.is_bounded or output.sums_to_1() else "softmax"

    def _may_exceed_1(self, output: Output, activation: Activation) -> bool:
        """Whether the sum over classes may: independent probabilities, one per class."""
        independent = activation == "none" and output.in_0_to_1 and not output.sums_to_1()
        return activation == "sigmoid" or independent

    def _read_highest(self, output: Output, anomalous: list[int], activation: Activation) -> None:
        axis = output.values[0].ndim - len(output.per_image)
        self._fields["score"] = self._edit.highest(output.name, axis, anomalous, sigmoid=activation == "sigmoid")
        ignored = "; pixels of --ignore count for it too" if output is self._roles.class_mask else ""
        self._notes.append(
            f"The classes of {output} are independent of each other: the score is the highest of those that are not "
            f"normal, made by nodes behind the graph{ignored}."
        )

    # ----------------------------------------------------------------------------------------------------------------

    def _note_decision(self) -> None:
        if self._wanted.threshold is None:
            self._notes.append(f"Anomalous from a score of {self._threshold:g} on (--threshold).")
        if self._roles.anomaly_map and self._task == "segmentation" and self._wanted.pixel_threshold is None:
            self._notes.append(f"Pixels are anomalous from {self._pixel_threshold:g} on (--pixel-threshold).")
        if self._task == "segmentation" and self._wanted.combination is None:
            self._notes.append("The score alone makes the verdict, not the mask (--combination).")


def raw_threshold(threshold: float, calibration: Calibration) -> float:
    """The raw value that `calibration` maps to `threshold`.

    Raises:
        SettingOutOfRange: a logistic calibration reaches it nowhere.
    """
    if isinstance(calibration, LinearCalibration):
        return (threshold - 0.5) * calibration.range + calibration.center
    if isinstance(calibration, LogisticCalibration):
        if not 0 < threshold < 1 or calibration.a == 0:
            raise SettingOutOfRange(
                "--threshold", threshold, "above 0 and below 1 for a logistic calibration with A other than 0"
            )
        return (math.log(1 / threshold - 1) - calibration.b) / calibration.a * max(1.0, calibration.maximum)
    return threshold


def _default_names(count: int) -> list[str]:
    return ["background", "anomaly"] if count == 2 else ["background", *(f"class {index}" for index in range(1, count))]


def _activated(activation: Activation) -> str:
    return {"none": "a probability as it comes", "sigmoid": "a logit (sigmoid)", "softmax": "a logit (softmax)"}[
        activation
    ]
