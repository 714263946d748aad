"""Good images in, model out. Needs no anomaly, no training service and no GPU.

Every image is compared with patches of good images and scored by what is farthest from all of them. What counts as far
is learned by leaving images out in turn: the scores that good images get from a model that never saw them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from agent.workbench.errors import SettingOutOfRange, TooFewImages
from agent.workbench.fit import filter_bank
from agent.workbench.fit.augment import augmented
from agent.workbench.fit.calibrate import Calibration, calibrate
from agent.workbench.fit.coreset import k_centre
from agent.workbench.fit.graph_builder import GraphBuilder
from agent.workbench.fit.patch_distance import Standardisation, add_patch_distance, as_patches, position_channels

FOLDS = 4
"""Cross-validation: each quarter of the images is scored by a model of the other three."""
FEWEST_IMAGES = 4
"""One for each fold; below this there is nothing to be left out."""
POOL = 60_000
"""Patches from which a coreset is chosen: a fair sample of all, so that its time does not grow with the images."""
SMALLEST_DEVIATION = 1e-3
"""A quarter of a grey level. Channels of grey images never vary; dividing by less would make noise an anomaly."""

SHORTEST_WORKING_SIDE, LONGEST_WORKING_SIDE = 64, 1024
"""At 1024 the distances of one image to a coreset of 1000 take 260 MB; beyond, crop the images instead."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps are done, and how many there are."""


@dataclass(frozen=True)
class FitSettings:
    """How a model is fitted. The defaults are for a part that moves."""

    side: int = 384
    """Pixels of the longer side at which images are looked at; finer defects need more, time grows with its square."""
    coreset_size: int = 1000
    """Patches of good images the model keeps."""
    position_weight: float = 0.0
    """How much a patch must be in the same place as its neighbour; 0 where the part moves, 30 for fixed cameras."""
    augmentations: int = 1
    """Changed copies made of each good image."""
    k: float = 3.0
    """Robust standard deviations from the median good score to the threshold; more means fewer false alarms."""
    seed: int = 0
    """Decides folds, augmentations and samples; the same seed and images give the same model, byte for byte."""

    def __post_init__(self) -> None:
        """Raises SettingOutOfRange."""
        if not (np.isfinite(self.k) and 0 < self.k <= 100):
            raise SettingOutOfRange("k", self.k, "above 0 and at most 100")
        if not SHORTEST_WORKING_SIDE <= self.side <= LONGEST_WORKING_SIDE:
            raise SettingOutOfRange("size", self.side, f"{SHORTEST_WORKING_SIDE} to {LONGEST_WORKING_SIDE} pixels")
        if self.seed < 0:
            raise SettingOutOfRange("seed", self.seed, "0 or more")

    @classmethod
    def for_moving_part(cls) -> FitSettings:
        """Hand-held photographs, parts on a belt: the same thing may be anywhere."""
        return cls()

    @classmethod
    def for_fixed_position(cls) -> FitSettings:
        """A fixed camera and a part in a fixture: what is right in one place is wrong in another."""
        return cls(side=256, coreset_size=2000, position_weight=30.0, augmentations=3)


@dataclass(frozen=True)
class FittedModel:
    """A model, and what was learned on the way to it. Arrays are in the order the images came in."""

    model: onnx.ModelProto
    """`image` uint8 [1, H, W, 3], any H and W, to `score` float32 [1] and `anomaly_map` float32 [1, 1, rows, columns],
    both calibrated, 0..1."""
    raw_scores: NDArray[np.float64]
    """(n,) cross-validated distances."""
    scores: NDArray[np.float64]
    """(n,) the same, calibrated: 0.5 is the threshold."""
    outliers: NDArray[np.bool_]
    """(n,) images whose cross-validated score reaches the threshold: look at them."""
    calibration: Calibration
    """From distances to scores."""
    distinct_images: int
    """Images that differ from all others; copies count once."""


class _Purpose(IntEnum):
    """Each use of chance draws from a stream of its own, so that a change to one leaves the others as they were."""

    FOLDS = 0
    AUGMENT = 1
    SAMPLE = 2
    FOLD_CORESET = 3
    CORESET = 4


def fit(
    images: Sequence[NDArray[np.uint8]], settings: FitSettings, progress: Progress = lambda *_: None
) -> FittedModel:
    """A model of `images`, each (height, width, 3), RGB; they may differ in size.

    Images are asked for one at a time and not kept, so `images` may decode them as it is asked. Their order does not
    matter: they are sorted by their content first, and copies of one image count once.

    Raises TooFewImages.
    """
    return _Fit(images, settings, progress).run()


class _Fit:
    """One run of the method, told in `run`. Works on the distinct images, in the order of their hashes."""

    def __init__(self, images: Sequence[NDArray[np.uint8]], settings: FitSettings, progress: Progress) -> None:
        self._images = images
        self._settings = settings
        self._progress = progress

    def run(self) -> FittedModel:
        self._sort_by_content()
        self._choose_resolution()
        self._fold_of = self._rng(_Purpose.FOLDS).permutation(len(self._distinct)) % FOLDS
        self._look_at_good_images()
        raw_scores = self._cross_validate()
        calibration = calibrate(raw_scores, self._settings.k)
        coreset = self._choose_coreset(range(len(self._distinct)), self._rng(_Purpose.CORESET))
        as_given = raw_scores[self._distinct_of]
        return FittedModel(
            model=self._whole_graph(coreset, calibration),
            raw_scores=as_given,
            scores=calibration(as_given),
            outliers=as_given >= calibration.threshold,
            calibration=calibration,
            distinct_images=len(self._distinct),
        )

    def _sort_by_content(self) -> None:
        digests = []
        self._sizes: dict[bytes, tuple[int, int]] = {}
        for index in self._steps("reading", len(self._images)):
            pixels = self._images[index]
            height, width = pixels.shape[:2]
            # The size belongs to the content: the same bytes in another shape are another image.
            digest = hashlib.sha256(f"{width}x{height}:".encode() + np.ascontiguousarray(pixels).tobytes()).digest()
            digests.append(digest)
            self._sizes[digest] = (height, width)
        in_order = sorted(set(digests))
        if len(in_order) < FEWEST_IMAGES:
            raise TooFewImages(len(in_order), FEWEST_IMAGES)
        self._distinct = [digests.index(digest) for digest in in_order]
        place = {digest: index for index, digest in enumerate(in_order)}
        self._distinct_of = np.array([place[digest] for digest in digests])

    def _choose_resolution(self) -> None:
        heights, widths = np.median(list(self._sizes.values()), axis=0)
        self._height, self._width = filter_bank.working_resolution(int(heights), int(widths), self._settings.side)
        self._grid = (self._height // filter_bank.STRIDE, self._width // filter_bank.STRIDE)
        weight = self._settings.position_weight
        self._positions = position_channels(*self._grid, weight) if weight else None

    def _look_at_good_images(self) -> None:
        """Samples patches of each distinct image and of its changed copies; mean and deviation are over all patches."""
        copies = 1 + self._settings.augmentations
        cells = self._grid[0] * self._grid[1]
        # A fold's coreset sees three quarters of the images, and its pool shall be full.
        images_per_pool = len(self._distinct) * copies * (FOLDS - 1) / FOLDS
        sample_size = min(cells, int(np.ceil(POOL / images_per_pool)))
        self._session = _session(self._feature_graph())
        total, total_of_squares, samples = np.zeros(filter_bank.CHANNELS), np.zeros(filter_bank.CHANNELS), []
        self._cell_of_sample: list[NDArray[np.int64]] = []
        for index in self._steps("looking at good images", len(self._distinct)):
            pixels = self._images[self._distinct[index]]
            for copy in range(copies):
                seen = augmented(pixels, self._rng(_Purpose.AUGMENT, index, copy)) if copy else pixels
                patches = self._features(seen).reshape(filter_bank.CHANNELS, -1).T
                total += patches.sum(axis=0, dtype=np.float64)
                total_of_squares += np.square(patches, dtype=np.float64).sum(axis=0)
                cells_taken = self._rng(_Purpose.SAMPLE, index, copy).choice(cells, sample_size, replace=False)
                samples.append(patches[cells_taken])
                self._cell_of_sample.append(cells_taken)
        count = len(self._distinct) * copies * cells
        mean = total / count
        deviation = np.sqrt(np.maximum(total_of_squares / count - mean**2, 0))
        self._standardisation = Standardisation(
            mean.astype(np.float32), np.maximum(deviation, SMALLEST_DEVIATION).astype(np.float32)
        )
        self._samples = samples

    def _cross_validate(self) -> NDArray[np.float64]:
        """(distinct,) the distance score of each image from a model that saw neither it nor its changed copies."""
        scores = np.empty(len(self._distinct))
        steps = self._steps("cross-validating", len(self._distinct))
        for fold in range(FOLDS):
            seen = np.flatnonzero(self._fold_of != fold)
            coreset = self._choose_coreset(seen, self._rng(_Purpose.FOLD_CORESET, fold))
            scorer = _session(self._distance_graph(coreset))
            for left_out in np.flatnonzero(self._fold_of == fold):
                next(steps)
                features = self._features(self._images[self._distinct[left_out]])
                scores[left_out] = scorer.run(["score"], {"features": features})[0][0]
        next(steps, None)
        return scores

    def _choose_coreset(
        self, distinct: Sequence[int] | NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        copies = 1 + self._settings.augmentations
        rows = []
        for sample in (index * copies + copy for index in distinct for copy in range(copies)):
            positions = None if self._positions is None else self._positions[self._cell_of_sample[sample]]
            rows.append(as_patches(self._samples[sample].T[None], self._standardisation, positions))
        pool = np.concatenate(rows)
        if len(pool) > POOL:
            pool = pool[rng.choice(len(pool), POOL, replace=False)]
        return k_centre(pool, self._settings.coreset_size, rng)

    def _features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = self._session.run(None, {"image": pixels[None]})[0]
        return features

    def _feature_graph(self) -> onnx.ModelProto:
        graph = GraphBuilder()
        features = self._add_features(graph)
        graph.output("features", features, [1, filter_bank.CHANNELS, *self._grid])
        return graph.model("features")

    def _distance_graph(self, coreset: NDArray[np.float32]) -> onnx.ModelProto:
        graph = GraphBuilder()
        features = graph.input("features", TensorProto.FLOAT, [1, filter_bank.CHANNELS, *self._grid])
        _, score = add_patch_distance(graph, features, self._grid, self._standardisation, self._positions, coreset)
        graph.output("score", score, [1])
        return graph.model("distance")

    def _whole_graph(self, coreset: NDArray[np.float32], calibration: Calibration) -> onnx.ModelProto:
        graph = GraphBuilder()
        features = self._add_features(graph)
        distances, score = add_patch_distance(
            graph, features, self._grid, self._standardisation, self._positions, coreset
        )
        graph.output("score", calibration.add_to(graph, score), [1])
        graph.output("anomaly_map", calibration.add_to(graph, distances), [1, 1, *self._grid])
        return graph.model("fitted")

    def _add_features(self, graph: GraphBuilder) -> str:
        image = graph.input("image", TensorProto.UINT8, [1, "height", "width", 3])
        pixels = filter_bank.add_resized_image(graph, image, self._height, self._width)
        return filter_bank.add_filter_bank(graph, pixels, self._height, self._width)

    def _rng(self, purpose: _Purpose, *which: int) -> np.random.Generator:
        return np.random.default_rng([self._settings.seed, purpose, *which])

    def _steps(self, what: str, count: int) -> Iterator[int]:
        for step in range(count):
            self._progress(what, step, count)
            yield step
        self._progress(what, count, count)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    # Between runs numpy works on the same cores; threads that spin would take them from it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
