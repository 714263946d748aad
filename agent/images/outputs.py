"""A model's outputs as arrays of the shape that the manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import AnswerNotFinite, ModelDoesNotFit
from agent.packages.manifest import Activation, Manifest

Tensors = Mapping[str, NDArray[Any]]


def finite(tensors: Tensors, name: str) -> NDArray[Any]:
    """The output `name`.

    Raises:
        AnswerNotFinite: the model gave NaN or infinity.
        ModelDoesNotFit: it is empty.
    """
    values = tensors[name]
    if values.size == 0:
        raise ModelDoesNotFit(f"'{name}' is empty")
    if not np.isfinite(values).all():
        raise AnswerNotFinite(name)
    return values


def one_number(tensors: Tensors, name: str) -> float:
    """The output `name` as a number, whatever its shape.

    Raises:
        AnswerNotFinite, ModelDoesNotFit
    """
    values = finite(tensors, name)
    if values.size != 1:  # which of them it is, nobody could tell
        raise ModelDoesNotFit(f"'{name}' has the shape {values.shape}; a score is one number")
    return float(values.item())


def anomaly_map(tensors: Tensors, name: str) -> NDArray[np.float32]:
    """The map as float32, (h, w).

    Raises:
        AnswerNotFinite, ModelDoesNotFit
    """
    values = finite(tensors, name)
    if values.ndim < 2 or values.size != values.shape[-1] * values.shape[-2]:
        raise ModelDoesNotFit(f"'{name}' has the shape {values.shape}; an anomaly map is (1, 1, h, w)")
    return values.reshape(values.shape[-2:]).astype(np.float32, copy=False)


def class_channels(tensors: Tensors, manifest: Manifest) -> NDArray[np.float32]:
    """The class mask as float32, (channels, h, w), as the graph gives it.

    Raises:
        AnswerNotFinite, ModelDoesNotFit
    """
    name = manifest.outputs.class_mask
    assert name is not None  # only asked for where the manifest names one
    values = finite(tensors, name)
    wanted = len(manifest.mask_labels)
    if values.ndim < 3 or values.shape[-3] != wanted or values.size != wanted * values.shape[-1] * values.shape[-2]:
        raise ModelDoesNotFit(f"'{name}' has the shape {values.shape}; the manifest labels {wanted} channels")
    return values.reshape(values.shape[-3:]).astype(np.float32, copy=False)


def channel_labels(manifest: Manifest) -> list[int]:
    """For each channel of the class mask the index of the label it paints."""
    names = [label.name for label in manifest.labels]
    return [names.index(name) for name in manifest.mask_labels]


def activate(values: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """`values` as probabilities; softmax goes over the first axis."""
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))), np.float32)
    if activation == "softmax":
        shifted = np.exp(values - values.max(axis=0, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=0, keepdims=True), np.float32)
    return values
