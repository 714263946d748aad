"""The catalogue's metrics, as Prometheus' library takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import (
    Metric as Family,
)
from prometheus_client.registry import Collector

from agent.metrics.catalogue import METRICS, AgentFigures, Metric, Sample
from agent.models.tally import Distribution


def registry_of(figures: Callable[[], AgentFigures]) -> CollectorRegistry:
    """A registry of its own (the library's holds whatever others put there) with the agent's metrics and `process_*`.

    `figures` is asked anew at each scrape, from several threads.
    """
    registry = CollectorRegistry()
    registry.register(_AgentCollector(figures))
    ProcessCollector(registry=registry)
    return registry


class _AgentCollector(Collector):
    def __init__(self, figures: Callable[[], AgentFigures]) -> None:
        self._figures = figures

    def describe(self) -> Iterator[Family]:
        return (_family(metric, ()) for metric in METRICS)

    def collect(self) -> Iterator[Family]:
        figures = self._figures()  # once: what is shown together belongs together
        return (_family(metric, metric.samples(figures)) for metric in METRICS)


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    if metric.kind == "histogram":
        return _histogram(metric, samples)
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.says, labels=metric.labels)
    for labels, value in samples:
        assert not isinstance(value, Distribution)
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, samples: Iterable[Sample]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(metric.name, metric.says, labels=metric.labels)
    for labels, value in samples:
        assert isinstance(value, Distribution)
        bounds = [*map(str, value.bounds), "+Inf"]
        # Each of Prometheus' buckets holds all that is smaller, too.
        family.add_metric(labels, list(zip(bounds, accumulate(value.counts), strict=True)), value.total)
    return family
