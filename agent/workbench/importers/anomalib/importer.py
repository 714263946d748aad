"""Exports of anomalib, 0.7 to 2.7, as packages.

What stands where, by version, found in its sources (https://github.com/open-edge-platform/anomalib) and in exports:
0.7 leaves image and scores to the caller and says in metadata.json how (`transform`, thresholds, range); 1.0 to 1.2
take the image in and leave the scores; since 2.0 there is no metadata, and scores come out normalised and clipped. The
package has raw scores and maps in every case: a threshold can be tuned where a clipped score tells nothing any more.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from agent.packages.manifest import Cover, Outputs
from agent.workbench.errors import BadSource, SettingOutOfRange
from agent.workbench.importers.anomalib.decision import Choices, Decided, decide
from agent.workbench.importers.anomalib.graph import VERSION_0, Found, found_in
from agent.workbench.importers.anomalib.image import as_built_in, as_told, image_of
from agent.workbench.importers.anomalib.metadata import METADATA_NAME, Metadata, read_metadata
from agent.workbench.importers.anomalib.source import find_metadata, find_model
from agent.workbench.importers.graphs import rewiring
from agent.workbench.importers.graphs.onnx_file import read_onnx, serialised
from agent.workbench.importers.graphs.walk import Graph
from agent.workbench.packaging.draft import MODEL_FILE, Draft, background_and

RAW_SCORE, RAW_MAP = "raw_score", "raw_map"
"""Outputs of the packaged graph."""


def draft_of(source: Path, choices: Choices) -> Draft:
    """The package of the export at `source`: an ONNX file, or a folder that holds one.

    Raises:
        BadSource: it cannot be packaged; the sentence says why, and what to do.
        SettingOutOfRange: a choice does not go with the export.
    """
    file = find_model(source)
    model = read_onnx(file)
    metadata_file = find_metadata(file)
    metadata = read_metadata(metadata_file) if metadata_file else None
    graph = Graph(model)
    found = found_in(model, graph, metadata)
    if found is None:
        raise BadSource(file, "its outputs are none of anomalib's", "package it with: edge-agent package onnx")
    decided = decide(found, choices, file, _why_uncalibrated(found, metadata))
    image = image_of(file, model)
    if found.version == VERSION_0:
        if metadata is None or metadata.transform is None:
            raise BadSource(
                file,
                f"no {METADATA_NAME} beside it says how its images are resized and normalised",
                f"put the {METADATA_NAME} of the export there, or package it with: edge-agent package onnx",
            )
        if choices.resize == "graph":
            raise SettingOutOfRange("--resize", "graph", "agent: exports of 0.7 do not resize")
        taken = as_told(file, model, image, metadata.transform)
    else:
        taken = as_built_in(file, model, graph, image, choices.resize, paints=decided.task == "segmentation")
    return Draft(
        task=decided.task,
        preprocessing=taken.preprocessing,
        outputs=_outputs(model, found, decided, taken.covers),
        decision=decided.decision,
        labels=background_and(choices.anomaly_name) if decided.task == "segmentation" else [],
        source=f"an ONNX export of anomalib {found.version} ({file.name})",
        files={MODEL_FILE: serialised(model)},
        notes=[f"{file} is an export of anomalib {found.version}.", *taken.notes, *found.notes, *decided.notes],
    )


def _outputs(model: onnx.ModelProto, found: Found, decided: Decided, covers: Cover | None) -> Outputs:
    """Makes raw score and map the graph's outputs, as far as the package reads them."""
    reads_map = decided.task == "segmentation" or found.score is None
    wanted = {RAW_SCORE: found.score, RAW_MAP: found.map if reads_map else None}
    names = rewiring.expose(model, {name: tensor for name, tensor in wanted.items() if tensor is not None})
    return Outputs(score=names.get(RAW_SCORE), anomaly_map=names.get(RAW_MAP), map_covers=covers if reads_map else None)


def _why_uncalibrated(found: Found, metadata: Metadata | None) -> str:
    if found.version.startswith("2"):
        return "its scores are not normalised, and anomalib calls all above 0.5 anomalous, which is about every image"
    if metadata is None:
        return f"there is no {METADATA_NAME} beside it"
    if metadata.is_distribution:
        return f"its {METADATA_NAME} has the mean and deviation of a distribution, which is not supported"
    return f"its {METADATA_NAME} has no threshold"
