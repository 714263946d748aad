"""Whether a model has the tensors that its manifest names, whatever runtime tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.backends.base import ModelToOpen
from agent.errors import BadPackageFile, ModelDoesNotFit, ModelNotLoaded
from agent.packages.onnx_external_data import external_data_files, leads_outside

NAMES_SHOWN = 10


@dataclass(frozen=True)
class InputTensor:
    """What a runtime tells of a tensor that goes in."""

    dtype: str
    """As numpy calls it; the runtime's own word where numpy has none."""
    shape: Sequence[int | str | None]
    """Sizes; a free one is its name, or None."""


def check_tensors(inputs: Mapping[str, InputTensor], outputs: Mapping[str, str | None], model: ModelToOpen) -> int:
    """How many images the graph takes at once. `outputs`: by name, what is no tensor of numbers in the runtime's words.

    Raises:
        ModelDoesNotFit: it takes or gives something else than the manifest says.
    """
    if list(inputs) != [model.input]:
        raise ModelDoesNotFit(f"it takes {_names(inputs)}; the manifest feeds '{model.input}'")
    tensor = inputs[model.input]
    if tensor.dtype != model.input_dtype:
        raise ModelDoesNotFit(f"'{model.input}' is {tensor.dtype}; the manifest gives {model.input_dtype}")
    wanted = [size if isinstance(size, int) else None for size in tensor.shape]
    has_shape = f"'{model.input}' has the shape {list(tensor.shape)}"
    if len(wanted) != len(model.input_shape) or any(
        size not in (None, given) for size, given in zip(wanted[1:], model.input_shape[1:], strict=True)
    ):
        raise ModelDoesNotFit(f"{has_shape}; the manifest gives {model.input_shape}")
    if model.any_size and any(size is not None for size in wanted[1:3]):
        raise ModelDoesNotFit(f"{has_shape}; the manifest promises images of any size")
    for name in model.outputs:
        if name not in outputs:
            raise ModelDoesNotFit(f"it gives {_names(outputs)}; the manifest reads '{name}'")
        if outputs[name] is not None:
            raise ModelDoesNotFit(f"'{name}' is {outputs[name]}; a tensor of numbers can be read")
    return wanted[0] or 1


def check_weights(model: ModelToOpen, runtime: str) -> None:
    """Raises ModelNotLoaded where the model keeps weights outside its folder: not every runtime refuses to read them
    (ONNX Runtime 1.23.2 reads them, 1.31.1 does not)."""
    folder = model.path.parent
    try:
        locations = external_data_files(model.path)
    except BadPackageFile as error:
        raise ModelNotLoaded(runtime, str(error)) from None
    for location in locations:
        if leads_outside(location) or not (folder / location).resolve().is_relative_to(folder.resolve()):
            raise ModelNotLoaded(runtime, "it keeps weights outside its folder")


def _names(tensors: Iterable[str]) -> str:
    names = [f"'{name}'" for name in tensors]
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "") or "nothing"
