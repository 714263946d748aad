"""The engines that ONNX Runtime's TensorRT provider builds and keeps itself: each model's in a folder of their cache.

ONNX Runtime finds an engine again by the names in a graph, whatever its weights are, writes it in place, and does not
load a model whose engine or timings are torn. So it is given a folder that is named by all that an engine depends on,
and either empty or whole.

Source: ONNX Runtime's documentation of the TensorRT execution provider, "TensorRT EP Caches"; its sources for the name
of the file of timings (GetTimingCachePath). Under another name they would not be found, and do no harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from agent.backends.base import ModelToOpen
from agent.backends.device_engines import WAITING
from agent.backends.engine_cache import EngineCache, EngineKey, EngineTooLarge
from agent.errors import ModelNotLoaded, Refusal

log = logging.getLogger(__name__)

_TIMINGS = "TensorrtExecutionProvider_cache_sm{}.timing"
"""By compute capability: 87 for 8.7."""


class ProviderEngines:
    """The engines of one model on one GPU."""

    def __init__(self, cache: EngineCache, key: EngineKey, model: ModelToOpen) -> None:
        self._cache, self._key, self._model = cache, key, model

    def open(self, open_with: Callable[[Path | None], None]) -> None:
        """Has `open_with` load the model with the engines of a folder, or build and keep them there.

        `open_with` is given the folder (None: there is none to be had), and raises ModelNotLoaded where it does not
        load what lies there: then it is called once more, with an empty one. All that it raises comes through.
        """
        if self._opens_kept(open_with):
            return
        with self._cache.turn_to_build(lambda: self._model.on_progress(WAITING, "waiting")):
            # Another worker may have built them while this one waited.
            if not self._opens_kept(open_with):
                self._build(open_with)

    def _opens_kept(self, open_with: Callable[[Path | None], None]) -> bool:
        if not self._cache.has_folder(self._key):
            return False
        try:
            open_with(self._cache.folder_of(self._key))
        except ModelNotLoaded as refusal:
            log.warning("engines of the cache are not used and built again: %s", str(refusal))
            self._cache.remove_folder(self._key)
            return False
        return True

    def _build(self, open_with: Callable[[Path | None], None]) -> None:
        precision = self._key.precision
        self._model.on_progress(f"building TensorRT engines in {precision}: this takes minutes, once", "building")
        began = time.monotonic()
        folder = self._new_folder()
        try:
            open_with(folder)
        except Refusal:
            self._cache.remove_folder(self._key)
            raise
        seconds = time.monotonic() - began
        # A warning, because a worker's lines of less weight are not logged, and minutes went by.
        log.warning("TensorRT engines in %s were built in %.0f s", precision, seconds)
        if folder is not None:
            self._keep(folder, seconds)

    def _new_folder(self) -> Path | None:
        timings = self._cache.timing(self._key)
        try:
            folder = self._cache.empty_folder(self._key)
            if timings:
                self._timings_in(folder).write_bytes(timings)
        except OSError as error:
            log.warning("the engine cache takes no engines: %s", error.strerror)
            return None
        return folder

    def _keep(self, folder: Path, seconds: float) -> None:
        timings = self._timings_in(folder)
        try:
            if timings.exists():
                # Measured for all models of this GPU, not for this one alone.
                self._cache.store_timing(self._key, memoryview(timings.read_bytes()))
                timings.unlink()
            self._cache.keep_folder(self._key, self._model.name, seconds)
        except (OSError, EngineTooLarge) as error:
            # It serves all the same: only the next start takes as long again.
            log.warning("the TensorRT engines could not be kept: %s", error)

    def _timings_in(self, folder: Path) -> Path:
        return folder / _TIMINGS.format(self._key.compute_capability.replace(".", ""))
