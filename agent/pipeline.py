"""Pixels to detection: preprocess, infer, postprocess. The same pipeline serves in a worker and runs at the bench."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.backends.base import BackendSettings, Lowered, ModelToOpen, OnProgress, RunsOn, Tensors, say_nothing
from agent.backends.opening import open_backend
from agent.errors import AnswerNotFinite, SelfTestFailed, WrongImageSize
from agent.images.detection import Detection, StageTimes, paint_mask, regions_of
from agent.images.inspected import Inspected
from agent.images.placement import placement_of
from agent.images.postprocess import Answer, decide, image_score, pixel_labels
from agent.images.preprocess import crop, preprocess, tensor_shape
from agent.packages.manifest import AgentPreprocessing, Manifest, PackageFile, SelfTestImage, TensorRtEngine
from agent.packages.package import Package, verify_files
from agent.packages.self_test import SelfTestAnswer, run_self_test

log = logging.getLogger(__name__)

DEVIATES = "{} deviates in the self-test, so it runs in fp32"


class Pipeline:
    """A package, verified and opened on a backend. `detect` may be called from several threads at once."""

    def __init__(self, package: Package, settings: BackendSettings, on_progress: OnProgress = say_nothing) -> None:
        """Verifies the files, loads the model and warms it up; `self_test` is a step of its own.

        `on_progress` is told in words what takes long, from any thread.

        Raises:
            BadPackage: the package cannot be served; the sentence says why.
        """
        verify_files(package)
        manifest = package.manifest
        preprocessing = manifest.preprocessing
        self._package, self._manifest, self._preprocessing = package, manifest, preprocessing
        self._threads, self._on_progress = settings.threads, on_progress
        self._backend, self._runs_on = open_backend(manifest.files, self._model_to_open, settings)
        ignored = package.ignore_mask()
        self._inspected = None if ignored is None else Inspected(crop(~ignored, preprocessing.region_of_interest))
        self._names = [label.name for label in manifest.labels]
        self._colors = manifest.colors

    @property
    def runs_on(self) -> RunsOn:
        return self._runs_on

    @property
    def lowered_to(self) -> Lowered:
        """What the model computes in where that is less precise than its graph says, because the settings allow it."""
        return self._backend.lowered_to

    def self_test(self) -> list[tuple[SelfTestImage, SelfTestAnswer]]:
        """Each self-test image with the model's answer.

        Raises:
            SelfTestFailed: an answer deviates from what the package expects.
        """
        return run_self_test(self._package, self._backend.precision, self._self_test_answer)

    def _model_to_open(self, file: PackageFile) -> ModelToOpen:
        manifest, preprocessing = self._manifest, self._preprocessing
        return ModelToOpen(
            path=self._package.path_of(file),
            name=manifest.model.name,
            engine=file.runtime if isinstance(file.runtime, TensorRtEngine) else None,
            on_progress=self._on_progress,
            input=preprocessing.tensor,
            input_shape=tensor_shape(preprocessing, manifest.image.width, manifest.image.height),
            input_dtype=preprocessing.dtype if isinstance(preprocessing, AgentPreprocessing) else "uint8",
            outputs=manifest.outputs.tensors,
            size=manifest.model_size,
            any_size=manifest.image.any_size and not isinstance(preprocessing, AgentPreprocessing),
        )

    def detect(
        self, pixels: NDArray[np.uint8], mask_into: memoryview | None = None, threshold: float | None = None
    ) -> Detection:
        """The answer to `pixels` (uint8, (height, width, 3), RGB, C-contiguous).

        A segmentation model's mask is painted into `mask_into` (writable bytes, at least height * width * 3) where it
        is given, else into new memory; classification models paint none. `threshold` (0..1) stands in for the
        package's.

        Raises:
            WrongImageSize: the package takes images of one size, and this is another.
            AnswerNotFinite: the model gave NaN or infinity.
            ModelDoesNotFit: an output has not the shape its manifest says.
        """
        height, width = pixels.shape[:2]
        image = self._manifest.image
        if not image.any_size and (width, height) != (image.width, image.height):
            raise WrongImageSize(self._manifest.model.name, width, height, image.width, image.height)

        began = time.perf_counter()
        tensor = preprocess(pixels, self._preprocessing, self._threads)
        if self._backend.batch > 1:  # fixed in the graph: the image is repeated, the first answer counts
            tensor = np.repeat(tensor, self._backend.batch, axis=0)
        preprocessed = time.perf_counter()
        tensors = self._backend.run({self._preprocessing.tensor: tensor})
        inferred = time.perf_counter()
        if self._backend.batch > 1:
            tensors = {name: values[:1] if values.ndim else values for name, values in tensors.items()}
        detection = self._judge(tensors, width, height, mask_into, self._in_force(threshold))
        times = StageTimes(preprocessed - began, inferred - preprocessed, time.perf_counter() - inferred)
        return dataclasses.replace(detection, times=times)

    def _in_force(self, threshold: float | None) -> Manifest:
        """The manifest to judge an image by: whatever depends on the threshold reads it from there."""
        if threshold is None:
            return self._manifest
        replace = msgspec.structs.replace
        return replace(self._manifest, decision=replace(self._manifest.decision, threshold=threshold))

    def _judge(
        self, tensors: Tensors, width: int, height: int, mask_into: memoryview | None, manifest: Manifest
    ) -> Detection:
        """What the model's outputs for a width x height image mean, by the decision of `manifest`."""
        region = self._preprocessing.region_of_interest
        placement = placement_of(self._preprocessing, width, height)
        answer = Answer(tensors, manifest, placement, self._inspected)
        score = image_score(answer)
        if manifest.task == "classification":
            return Detection(*decide(score, manifest.decision, mask_shows_anomaly=False))

        labels = pixel_labels(answer)
        if region is not None:
            whole = np.zeros((height, width), np.uint8)
            whole[region.y : region.y + region.height, region.x : region.x + region.width] = labels
            labels = whole
        regions = regions_of(labels, self._names, self._colors)
        mask = np.frombuffer(
            bytearray(labels.size * 3) if mask_into is None else mask_into, np.uint8, labels.size * 3
        ).reshape(height, width, 3)
        paint_mask(labels, self._colors, mask)
        verdict = decide(score, manifest.decision, mask_shows_anomaly=len(regions) > 1)
        return Detection(*verdict, regions=regions, mask=mask)

    def _self_test_answer(self, pixels: NDArray[np.uint8]) -> SelfTestAnswer:
        detection = self.detect(pixels)
        areas = {region.name: region.area for region in detection.regions}
        return SelfTestAnswer(detection.score, detection.is_anomalous, areas)


@dataclass(frozen=True)
class TestedPipeline:
    """A pipeline that answered the images of its package as expected."""

    pipeline: Pipeline
    runs_on: RunsOn
    self_test: list[tuple[SelfTestImage, SelfTestAnswer]]
    """Each self-test image with the model's answer."""


def open_tested(package: Package, settings: BackendSettings, on_progress: OnProgress = say_nothing) -> TestedPipeline:
    """Opens a package and puts it to its self-test. A model in fp16 or TF32 that does not pass gives way to one in
    fp32, once.

    Raises:
        BadPackage: the package cannot be served, or does not answer as expected; the sentence says why.
    """
    pipeline = Pipeline(package, settings, on_progress)
    on_progress("running the self-test")
    try:
        return TestedPipeline(pipeline, pipeline.runs_on, pipeline.self_test())
    except (SelfTestFailed, AnswerNotFinite) as deviation:  # fp16 ends at 65504: beyond it is infinity
        if not pipeline.lowered_to:
            raise
        deviates = DEVIATES.format(pipeline.lowered_to)
        # As text: a log record that somebody keeps would keep the exception, and all that it came from.
        log.warning("%s: %s", deviates, str(deviation))
    # Not in the handler: what is being handled keeps the first model, and its GPU memory.
    del pipeline
    on_progress(deviates)
    pipeline = Pipeline(package, dataclasses.replace(settings, precision="fp32"), on_progress)
    runs_on = dataclasses.replace(pipeline.runs_on, remark=deviates)
    return TestedPipeline(pipeline, runs_on, pipeline.self_test())
