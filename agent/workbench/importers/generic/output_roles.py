"""Which outputs of a graph mean what, from their shapes, their names and what they answered to some pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from agent.workbench.errors import BadSource, SettingOutOfRange
from agent.workbench.importers.graphs.image_input import constant
from agent.workbench.importers.graphs.probe import Answers

OPTIONS = {
    "score": "--score",
    "class_scores": "--class-scores",
    "anomaly_map": "--anomaly-map",
    "class_mask": "--class-mask",
}
"""The option that names the output of a role."""
SHAPING = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Gather", "Concat"}
POOLING = {"ReduceMax", "ReduceMean", "GlobalMaxPool", "GlobalAveragePool", "MaxPool", "AveragePool"}
KEEPS_RANGE = frozenset({*SHAPING, *POOLING, "Split", "Resize", "Upsample"})
"""Operators behind which values of 0..1 are still in 0..1 (all but cubic resizing, which the probe finds)."""
PROPORTION_TOLERANCE = 0.1
"""How far a plane's proportions may be from the tensor's: 7x7 from 224x200 is one."""


@dataclass(frozen=True)
class Output:
    """One output of a graph and what it answered."""

    name: str
    values: Sequence[NDArray[Any]]
    """For each picture shown, (1, ...) or without the batch."""
    last: str
    """The operator that made the values, but for reshaping: Softmax, Sigmoid, Gemm, ..."""
    batch_first: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values[0].shape

    @property
    def per_image(self) -> tuple[int, ...]:
        """The shape without the batch."""
        return self.shape[1:] if self.batch_first and self.shape[:1] == (1,) else self.shape

    @property
    def lowest(self) -> float:
        return min(float(values.min()) for values in self.values)

    @property
    def highest(self) -> float:
        return max(float(values.max()) for values in self.values)

    @property
    def in_0_to_1(self) -> bool:
        return self.lowest >= -1e-6 and self.highest <= 1 + 1e-6

    @property
    def range(self) -> str:
        return f"{self.lowest:.4g} to {self.highest:.4g}"

    @property
    def is_bounded(self) -> bool:
        """Whether the graph itself keeps the values in 0..1."""
        return self.last in ("Softmax", "Sigmoid", "HardSigmoid", "Clip")

    def sums_to_1(self) -> bool:
        """Whether the values over the classes (the first axis of an image) are a distribution."""
        axis = self.values[0].ndim - len(self.per_image)
        return self.in_0_to_1 and all(
            np.allclose(values.astype(np.float64).sum(axis=axis), 1, atol=2e-3) for values in self.values
        )

    def __str__(self) -> str:
        return f"{self.name} {self.values[0].dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Roles:
    """The outputs that are read, by what they mean; None where a graph has none of the kind."""

    score: Output | None = None
    class_scores: Output | None = None
    anomaly_map: Output | None = None
    class_mask: Output | None = None
    class_numbers: Output | None = None
    """A map of class numbers (an argmax in the graph); becomes a class mask."""

    @property
    def mask(self) -> Output | None:
        return self.anomaly_map or self.class_mask or self.class_numbers

    def named(self) -> list[tuple[str, Output]]:
        return [(role, output) for role, output in vars(self).items() if output is not None]


def outputs_of_answers(source: Path, model: onnx.ModelProto, answers: Answers) -> list[Output]:
    """The outputs that answered with finite numbers.

    Raises:
        BadSource: none did.
    """
    outputs = []
    for name in answers[0]:
        values = [answer[name] for answer in answers]
        if all(value.size and np.isfinite(value).all() for value in values if value.dtype.kind != "b"):
            outputs.append(Output(name, values, _last_operator(model, name)))
    if not outputs:
        raise BadSource(
            source, "it answers NaN, infinity or nothing to simple pictures", "export it in float32 and try it there"
        )
    return outputs


def given_roles(outputs: Sequence[Output], named: dict[str, str]) -> Roles:
    """The roles that were told: `named` is role to output.

    Raises:
        SettingOutOfRange: an output is not there, or not of the shape of its role.
    """
    by_name = {output.name: output for output in outputs}
    told: dict[str, Output] = {}
    for role, name in named.items():
        known = ", ".join(map(str, outputs))
        if name not in by_name:
            raise SettingOutOfRange(OPTIONS[role], repr(name), f"one of the graph's outputs: {known}")
        possible = _possible_roles(by_name[name])
        if role == "class_mask" and "class_numbers" in possible:
            role = "class_numbers"
        if role not in possible:
            raise SettingOutOfRange(OPTIONS[role], repr(name), f"an output of another shape; there are {known}")
        told[role] = by_name[name]
    if "score" in told and "class_scores" in told:
        raise SettingOutOfRange("--class-scores", "given", "left out beside --score: one of them makes the score")
    if "anomaly_map" in told and ("class_mask" in told or "class_numbers" in told):
        raise SettingOutOfRange("--class-mask", "given", "left out beside --anomaly-map: one of them makes the mask")
    return Roles(**told)


def guessed_roles(source: Path, outputs: Sequence[Output], proportions: float) -> Roles:
    """What the outputs' shapes and names suggest; `proportions` is the tensor's width / height.

    Raises:
        BadSource: they suggest nothing.
    """
    found: dict[str, list[Output]] = {}
    for output in outputs:
        possible = _possible_roles(output)
        if possible and not _looks_like_no_plane(output, proportions):
            found.setdefault(possible[0], []).append(output)
    chosen = {role: _best_named(role, candidates) for role, candidates in found.items()}
    roles = Roles(**chosen)
    if roles.score is not None and roles.class_scores is not None:
        # One of them makes the score: the number if it is called one, else the classes.
        roles = replace(roles, **{"class_scores" if "score" in roles.score.name.lower() else "score": None})
    if roles.anomaly_map is not None and (roles.class_mask or roles.class_numbers):
        roles = replace(roles, class_mask=None, class_numbers=None)
    if roles.class_mask is not None:
        roles = replace(roles, class_numbers=None)
    if not roles.named():
        raise BadSource(
            source,
            f"none of its outputs can be told for a score, a map or a mask: {', '.join(map(str, outputs))}",
            "say what they mean with --score, --class-scores, --anomaly-map or --class-mask",
        )
    return roles


def _possible_roles(output: Output) -> list[str]:
    """What an output of this shape and type may be, the likeliest first."""
    shape, kind = output.per_image, output.values[0].dtype.kind
    if kind in "iu":
        return ["class_numbers"] if len(shape) in (2, 3) and math.prod(shape[:-2]) == 1 and min(shape) > 0 else []
    if kind != "f":
        return []
    if math.prod(shape) == 1:
        return ["score"]
    if len(shape) == 1 or (len(shape) == 3 and shape[1:] == (1, 1)):
        return ["class_scores"]
    if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
        return ["anomaly_map"]
    return ["class_mask"] if len(shape) == 3 else []


def _looks_like_no_plane(output: Output, proportions: float) -> bool:
    """(1, h, w) may be anything, such as rows of boxes; a map has about the proportions of the image."""
    shape = output.per_image
    if len(shape) != 2:
        return False
    ratio = shape[1] / shape[0] / proportions
    return not 1 / (1 + PROPORTION_TOLERANCE) <= ratio <= 1 + PROPORTION_TOLERANCE


def _best_named(role: str, candidates: Sequence[Output]) -> Output:
    """Of several outputs of one kind: the one named for it, else the first (auxiliary heads come last)."""
    words = {"score": ("score", "prob"), "anomaly_map": ("anomaly", "map")}.get(role, ("prob", "softmax"))
    return next((output for word in words for output in candidates if word in output.name.lower()), candidates[0])


def _last_operator(model: onnx.ModelProto, name: str) -> str:
    made_by = {output: node for node in model.graph.node for output in node.output}
    node = made_by.get(name)
    while node is not None and node.op_type in KEEPS_RANGE and node.input:
        node = made_by.get(node.input[0])
    if node is None:
        return ""
    return "" if node.op_type == "Clip" and not _clips_to_0_to_1(model, node) else str(node.op_type)


def _clips_to_0_to_1(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    limits = {attribute.name: attribute.f for attribute in node.attribute}  # before opset 11
    for name, index in (("min", 1), ("max", 2)):
        values = constant(model, node.input[index]) if len(node.input) > index else None
        if values:
            limits[name] = values[0]
    return limits.get("min", -math.inf) >= 0 and limits.get("max", math.inf) <= 1
