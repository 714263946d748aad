"""Any ONNX classifier, segmentation net or anomaly map: the graph is looked at and tried, options say the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from agent.packages.manifest import AgentPreprocessing, Preprocessing
from agent.workbench.errors import BadSource
from agent.workbench.importers.generic.output_reading import OutputOptions, read_outputs
from agent.workbench.importers.generic.output_roles import given_roles, guessed_roles, outputs_of_answers
from agent.workbench.importers.generic.preprocessing_options import PreprocessingOptions, preprocessing_for
from agent.workbench.importers.graphs.edit import GraphEdit, fitted_input
from agent.workbench.importers.graphs.image_input import image_input
from agent.workbench.importers.graphs.onnx_file import read_onnx, serialised
from agent.workbench.importers.graphs.probe import probe
from agent.workbench.importers.graphs.source import onnx_file_in
from agent.workbench.importers.ultralytics.metadata import is_export
from agent.workbench.packaging.draft import MODEL_FILE, Draft


def import_onnx(
    source: Path,
    prepare: PreprocessingOptions,
    wanted: OutputOptions,
    pictures: Sequence[NDArray[np.uint8]] = (),
) -> Draft:
    """A draft of the graph in `source`, a file or the folder that holds it.

    `pictures` (uint8, (h, w, 3), RGB, of any sizes) are shown to it to see what its outputs are; drawn ones where there
    are none.

    Raises:
        BadSource: the graph does not run, or cannot be packaged as it is.
        SettingOutOfRange: an option is wrong, or one is needed.
    """
    file = onnx_file_in(source)
    model = read_onnx(file)
    _refuse_ultralytics(file, model)
    image = image_input(file, model, prepare.layout)
    preprocessing, notes = preprocessing_for(file, model, image, prepare)
    edit = GraphEdit(model)
    preprocessing, edits = fitted_input(edit, image, preprocessing)

    answers = probe(file, model, preprocessing, pictures)
    outputs = outputs_of_answers(file, model, answers)
    if wanted.named:
        roles = given_roles(outputs, wanted.named)
    else:
        roles = guessed_roles(file, outputs, _proportions(preprocessing, pictures))
    read = [output.name for _, output in roles.named()]
    unread = [output.name for output in outputs if output.name not in read]
    if unread:
        edits.append(f"Not read: {', '.join(unread)} (--score, --class-scores, --anomaly-map, --class-mask).")
    reading = read_outputs(file, edit, roles, wanted)
    return Draft(
        task=reading.task,
        preprocessing=preprocessing,
        outputs=reading.outputs,
        decision=reading.decision,
        source=" ".join(filter(None, [f"{file.name}, an ONNX graph", _producer(model)])),
        files={MODEL_FILE: serialised(model)},
        labels=reading.labels,
        notes=[*notes, *edits, *reading.notes],
    )


def _refuse_ultralytics(file: Path, model: onnx.ModelProto) -> None:
    """Its boxes cannot be told for what they are by their shape alone."""
    if is_export(model):
        raise BadSource(file, "it is an export of Ultralytics", "use: edge-agent package ultralytics")


def _producer(model: onnx.ModelProto) -> str:
    return f"by {model.producer_name} {model.producer_version}".strip() if model.producer_name else ""


def _proportions(preprocessing: Preprocessing, pictures: Sequence[NDArray[np.uint8]]) -> float:
    if isinstance(preprocessing, AgentPreprocessing):
        return preprocessing.width / preprocessing.height
    return pictures[0].shape[1] / pictures[0].shape[0] if pictures else 1.0
