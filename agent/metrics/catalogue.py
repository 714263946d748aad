"""Every metric of the agent: its name, what it says, and where its values come from. docs/metrics.md is made from here.

Names follow Prometheus' conventions: base units, `_total` for what only grows. Labels take few values: names of model
components in the registry, and closed sets; never what a client says.
Source: prometheus.io/docs/practices/naming and prometheus.io/docs/practices/instrumentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.backends.base import STAGES
from agent.models.figures import ModelFigures, WorkerFigures
from agent.models.lifecycle import ModelStatus
from agent.models.tally import Distribution


@dataclass(frozen=True)
class AgentFigures:
    """All that is known at the moment of a scrape."""

    version: str
    calls: Mapping[tuple[str, str], int]
    """Answered, by method and status code."""
    images_in_hand: int
    message_memory: int
    """Bytes of the images in messages that are held."""
    models: Sequence[ModelFigures]


Value = float | Distribution
Sample = tuple[tuple[str, ...], Value]
"""The values of the labels, and what is measured for them."""


@dataclass(frozen=True)
class Metric:
    """One metric, with however many series."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    says: str
    samples: Callable[[AgentFigures], Iterable[Sample]]


def _of_models(
    samples: Callable[[ModelFigures], Iterable[Sample]],
) -> Callable[[AgentFigures], Iterator[Sample]]:
    """The samples of every model, with its component as first label."""

    def of_all(agent: AgentFigures) -> Iterator[Sample]:
        for model in agent.models:
            for labels, value in samples(model):
                yield (model.component, *labels), value

    return of_all


def _of_each_model(value: Callable[[ModelFigures], Value | None]) -> Callable[[AgentFigures], Iterator[Sample]]:
    """One sample a model; none where its value is None."""

    def of_one(model: ModelFigures) -> Iterator[Sample]:
        if (found := value(model)) is not None:
            yield (), found

    return _of_models(of_one)


def _of_each_worker(samples: Callable[[WorkerFigures], Sample]) -> Callable[[AgentFigures], Iterator[Sample]]:
    """One sample a model that has a worker."""
    return _of_models(lambda model: [] if model.worker is None else [samples(model.worker)])


def _states(model: ModelFigures) -> Iterator[Sample]:
    for status in ModelStatus:
        yield (status.value,), status is model.status


def _stages(model: ModelFigures) -> Iterator[Sample]:
    for stage in STAGES:
        yield (stage,), stage == model.stage


def _runs_on(worker: WorkerFigures) -> Sample:
    served_by, runs_on = worker.served_by, worker.served_by.runs_on
    labels = (runs_on.runtime, runs_on.device, runs_on.wanted, runs_on.instead_of, runs_on.refused_as)
    return (served_by.version, *labels), 1


AGENT_METRICS = (
    Metric("edge_agent_info", "gauge", ("version",), "1; the agent's version.", lambda agent: [((agent.version,), 1)]),
    Metric(
        "edge_agent_calls_total",
        "counter",
        ("method", "code"),
        "Calls that the service answered, by method and gRPC status code.",
        lambda agent: agent.calls.items(),
    ),
    Metric(
        "edge_agent_images_in_hand",
        "gauge",
        (),
        "DetectAnomalies calls that are being answered or wait, of all models together.",
        lambda agent: [((), agent.images_in_hand)],
    ),
    Metric(
        "edge_agent_message_memory_bytes",
        "gauge",
        (),
        "What images in messages take now; the setting message_memory is the most they may.",
        lambda agent: [((), agent.message_memory)],
    ),
)

MODEL_METRICS = (
    Metric(
        "edge_agent_model_state",
        "gauge",
        ("model", "state"),
        f"1 for the state that the model is in, 0 for the others: {', '.join(status.value for status in ModelStatus)}.",
        _of_models(_states),
    ),
    Metric(
        "edge_agent_model_stage",
        "gauge",
        ("model", "stage"),
        f"1 for what a model that is being loaded is at, 0 for the others: {', '.join(STAGES)}. Of a worker that is to "
        "take another's place, only that it waits or builds.",
        _of_models(_stages),
    ),
    Metric(
        "edge_agent_model_ready",
        "gauge",
        ("model",),
        "1 where the model would answer an image now; 0 also while a worker that ended is being replaced.",
        _of_each_model(lambda model: model.status is ModelStatus.RUNNING and model.worker is not None),
    ),
    Metric(
        "edge_agent_model_info",
        "gauge",
        ("model", "version", "runtime", "device", "wanted_device", "instead_of", "reason"),
        "1 where the model has a worker: version of the component, runtime, device, the device that the settings name, "
        "and where another stands in for it: which one could not, and the class of the reason.",
        _of_each_worker(_runs_on),
    ),
    Metric(
        "edge_agent_model_fallback",
        "gauge",
        ("model",),
        "1 where the model runs on another device than it was to run on.",
        _of_each_worker(lambda worker: ((), bool(worker.served_by.runs_on.instead_of))),
    ),
    Metric(
        "edge_agent_model_load_seconds",
        "gauge",
        ("model",),
        "How long the worker took until it could answer, the build of a TensorRT engine included.",
        _of_each_worker(lambda worker: ((), worker.load_seconds)),
    ),
    Metric(
        "edge_agent_model_threshold",
        "gauge",
        ("model",),
        "Anomaly threshold by which an image would be judged now, 0 to 1: this device's, else the package's.",
        _of_each_model(lambda model: model.threshold),
    ),
    Metric(
        "edge_agent_worker_memory_bytes",
        "gauge",
        ("model",),
        "What the model's worker process holds and no file backs; images in hand are not counted.",
        _of_each_worker(lambda worker: ((), worker.memory)),
    ),
    Metric(
        "edge_agent_worker_restarts_total",
        "counter",
        ("model",),
        "Workers that ended, or had to be ended, while the model was RUNNING, and had to be replaced.",
        _of_each_model(lambda model: model.restarts),
    ),
    Metric(
        "edge_agent_model_calls_in_hand",
        "gauge",
        ("model",),
        "Calls that the model works on.",
        _of_each_model(lambda model: model.calls_in_hand),
    ),
    Metric(
        "edge_agent_model_calls_waiting",
        "gauge",
        ("model",),
        "Calls that wait for their turn; the setting queue_length is the most that may.",
        _of_each_model(lambda model: model.calls_waiting),
    ),
    Metric(
        "edge_agent_images_total",
        "counter",
        ("model", "verdict"),
        "Images that were inspected, by verdict: normal, anomalous.",
        _of_models(lambda model: [((verdict,), count) for verdict, count in model.counted.verdicts.items()]),
    ),
    Metric(
        "edge_agent_refused_images_total",
        "counter",
        ("model", "code", "reason"),
        "Images that were not inspected, by gRPC status code and class of the refusal.",
        _of_models(lambda model: model.counted.refusals.items()),
    ),
    Metric(
        "edge_agent_anomaly_score",
        "histogram",
        ("model",),
        "Anomaly scores, 0 to 1.",
        _of_each_model(lambda model: model.counted.scores),
    ),
    Metric(
        "edge_agent_answer_seconds",
        "histogram",
        ("model",),
        "From an image's arrival until its answer, without what gRPC takes for the messages.",
        _of_each_model(lambda model: model.counted.answers),
    ),
    Metric(
        "edge_agent_step_seconds",
        "histogram",
        ("model", "step"),
        "What of that the steps took: waiting, preprocessing, inferring, postprocessing.",
        _of_models(lambda model: [((step,), seconds) for step, seconds in model.counted.steps.items()]),
    ),
)

METRICS: tuple[Metric, ...] = AGENT_METRICS + MODEL_METRICS
