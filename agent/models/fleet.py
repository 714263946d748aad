"""All models of this device."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import MappingProxyType

from agent.errors import AgentStops, ModelAlreadyStarted, ModelNotFound, NotEnoughMemory, Refusal
from agent.models.admission import Caller
from agent.models.device_threshold import ThresholdFile
from agent.models.figures import ModelFigures
from agent.models.keeper import ModelSettings, OpenWorker
from agent.models.lifecycle import ModelStatus
from agent.models.registry import Record, check_component_name
from agent.models.request import DetectRequest
from agent.models.retries import Retries
from agent.models.served_model import Inspection, ModelDescription, OnChange, ServedModel
from agent.models.wanted import WantedModels

log = logging.getLogger(__name__)


class Fleet:
    """The models of the registry by component name. All methods may be called from several threads at once."""

    def __init__(
        self,
        open_worker: OpenWorker,
        settings: ModelSettings,
        wanted: WantedModels | None = None,
        retries: Retries | None = None,
        *,
        auto_start: bool = False,
        on_change: OnChange = lambda component, can_answer: None,
    ) -> None:
        """Models in `wanted` start as soon as they are registered, and FAILED ones with their next version; with
        `auto_start` all do. What finds too little memory then, or no GPU, is tried again by `retries`.

        `on_change` is told whether a model can answer an image now, whenever that may have changed.
        """
        self._on_change = on_change
        self._retries = retries or Retries()
        self._open_worker, self._settings = open_worker, settings
        self._wanted, self._auto_start = wanted or WantedModels(), auto_start
        self._lock = threading.Lock()
        self._models: dict[str, ServedModel] = {}
        self._to_start: set[str] = set()
        """Those that are still to start by themselves."""
        self._answered = threading.Condition()
        self._calls, self._drains = 0, False
        """Images in hand, and whether more are refused."""

    def use_settings(self, settings: ModelSettings, *, auto_start: bool) -> None:
        """Goes by these from now on, calls in hand included where a setting is about them; no call fails for it.

        Where `auto_start` is turned on, every model that does not run is started, as after a restart of the agent.
        """
        with self._lock:
            is_turned_on = auto_start and not self._auto_start
            # Whose turn it is to load was counted before the change.
            settings = replace(settings, loading=self._settings.loading)
            self._settings, self._auto_start = settings, auto_start
            models = dict(self._models)
            for model in models.values():
                model.use_settings(settings)
        if is_turned_on:
            for component in models:
                self._start_by_itself(component)

    def apply(
        self, records: Mapping[str, Record], thresholds: Mapping[str, ThresholdFile] = MappingProxyType({})
    ) -> None:
        """Makes the fleet what the registry says: models appear, serve their new package, judge by the threshold set
        on this device, or leave.

        What fails with one model keeps no other from its due; it is raised at the end, so that all is tried again.
        """
        with self._lock:
            known = dict(self._models)
        failures: list[Exception] = []
        for component in known.keys() | records.keys():
            try:
                self._apply(component, known.get(component), records.get(component), thresholds.get(component))
            except Exception as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _apply(
        self, component: str, model: ServedModel | None, record: Record | None, threshold: ThresholdFile | None
    ) -> None:
        if model is None:
            assert record is not None  # it comes from one of the two
            self._appear(record, threshold)
        elif record is None:
            log.info("model %s: it has left the registry", component)
            # Draining takes as long as its calls; the watch goes on meanwhile.
            threading.Thread(target=model.retire, name=f"retire-{component}", daemon=True).start()
            with self._lock:
                del self._models[component]
                self._to_start.discard(component)
            self._retries.forget(component)
        else:
            model.use_threshold(threshold)
            if model.record != record:
                self._retries.forget(component)
                waits = model.gives_up()  # also one that is STOPPED, for it was refused at boot
                model.use(record)
                if self._is_wanted(component) and (waits or model.describe().status is ModelStatus.FAILED):
                    self._to_start.add(component)  # a deployment may have mended it, and nobody is there to start it
        if component in self._to_start:
            self._start_by_itself(component)

    def _appear(self, record: Record, threshold: ThresholdFile | None) -> None:
        log.info("model %s: version %s is registered", record.component, record.version)
        # Reads the manifest, so outside the lock: the other models answer meanwhile.
        model = ServedModel(record, self._open_worker, self._settings, self._model_changed, self._will_try_again)
        model.use_threshold(threshold)  # before anybody can ask it
        with self._lock:
            model.use_settings(self._settings)  # they may have changed meanwhile
            self._models[record.component] = model
            if self._is_wanted(record.component):
                self._to_start.add(record.component)

    def _is_wanted(self, component: str) -> bool:
        return self._auto_start or component in self._wanted

    def _start_by_itself(self, component: str) -> None:
        try:
            self._model(component).start()
        except ModelAlreadyStarted:  # a client was quicker
            pass
        except NotEnoughMemory as refusal:
            self._will_try_again(component, str(refusal))
        except Refusal as refusal:
            log.error("model %s does not start by itself: %s", component, refusal)
        self._to_start.discard(component)

    def start_due(self) -> None:
        """Starts again what found too little memory, or no GPU, and has waited long enough; to be called every now and
        then."""
        for component in self._retries.due():
            if self._is_wanted(component):
                self._start_by_itself(component)
            else:  # the setting has changed meanwhile
                with suppress(ModelNotFound):
                    self._model(component).gives_up()

    def _will_try_again(self, component: str, reason: str = "") -> None:
        with suppress(ModelNotFound):  # it has left the registry meanwhile
            model = self._model(component)
            seconds = self._retries.failed(component)
            log.error("model %s is tried again in %g s%s", component, seconds, reason and f": {reason}")
            model.tries_again(seconds, reason)

    def _model_changed(self, component: str, can_answer: bool) -> None:
        if can_answer:
            self._retries.forget(component)
        self._on_change(component, can_answer)

    def describe(self, component: str) -> ModelDescription:
        """Raises BadComponentName or ModelNotFound."""
        return self._model(component).describe()

    def list(self) -> list[ModelDescription]:
        """Every model, in the order of names."""
        return [model.describe() for model in self._in_order()]

    # A tuple: `list` is a method here.
    def figures(self) -> tuple[ModelFigures, ...]:
        """Of every model, in the order of names."""
        return tuple(model.figures() for model in self._in_order())

    @property
    def images_in_hand(self) -> int:
        """Of all models together, those that wait included."""
        return self._calls

    def count_refusal(self, component: str, code: str, reason: str) -> None:
        """An image was refused: status code, and class of the refusal. `component` is what the client said; of one that
        is not in the registry nothing is kept."""
        model = self._models.get(component)
        if model is not None:
            model.count_refusal(code, reason)

    def start(self, component: str) -> None:
        """Raises BadComponentName, ModelNotFound, or what `ServedModel.start` does."""
        self._model(component).start()
        self._wanted.add(component)

    def stop(self, component: str) -> None:
        """One that is FAILED and was to be started again by itself is not, from now on; it is refused all the same.

        Raises BadComponentName, ModelNotFound, or what `ServedModel.stop` does.
        """
        model = self._model(component)
        if model.gives_up():  # not where somebody has started it meanwhile: a call that is refused changes nothing
            self._retries.forget(component)
            self._wanted.discard(component)
        model.stop()
        self._wanted.discard(component)
        self._retries.hasten()

    def detect(self, component: str, request: DetectRequest, caller: Caller) -> Inspection:
        """Raises BadComponentName, ModelNotFound, AgentStops, or what `ServedModel.detect` does."""
        with self._in_hand():
            return self._model(component).detect(request, caller)

    def drain(self, limit: float) -> None:
        """Refuses images from now on; returns when those in hand are answered, after `limit` seconds at the latest."""
        with self._answered:
            self._drains = True
            self._answered.wait_for(lambda: self._calls == 0, limit)

    def close(self) -> None:
        """Ends all models at once, calls in hand unanswered; returns when their workers are gone."""
        with self._lock:
            models = list(self._models.values())
            self._models.clear()
        closing = [threading.Thread(target=model.close, name=f"close-{model.component}") for model in models]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    @contextmanager
    def _in_hand(self) -> Iterator[None]:
        with self._answered:
            if self._drains:
                raise AgentStops
            self._calls += 1
        try:
            yield
        finally:
            with self._answered:
                self._calls -= 1
                self._answered.notify_all()

    def _in_order(self) -> tuple[ServedModel, ...]:
        with self._lock:
            return tuple(model for _, model in sorted(self._models.items()))

    def _model(self, component: str) -> ServedModel:
        check_component_name(component)
        with self._lock:
            model = self._models.get(component)
        if model is None:
            raise ModelNotFound(component)
        return model
