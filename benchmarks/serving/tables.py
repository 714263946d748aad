"""Results as tables: of ratios, and of what was promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tabulate import tabulate

from benchmarks.serving.measure import CLIENTS
from benchmarks.serving.results import Results, Subject, all_latencies, medians, percentile, rates, ratio

Figures = Mapping[str, float]

HEADERS = (
    "size",
    "",
    "p50 ms",
    "p99 ms",
    "p50 / floor",
    f"calls/s of {CLIENTS}",
    "/ floor's capacity",
    f"p99 / p50 of {CLIENTS}",
)


@dataclass(frozen=True)
class Budget:
    """What one figure may be."""

    figure: str
    budget: float
    stretch: float | None = None
    at_least: bool = False

    def told(self, value: float) -> tuple[str, str, str, str, str]:
        """Figure, value, budget, stretch, and whether they are kept."""
        sign = ">=" if self.at_least else "<="
        stretch = "" if self.stretch is None else f"{sign} {self.stretch:g}"
        return self.figure, f"{value:.3g}", f"{sign} {self.budget:g}", stretch, self._verdict(value)

    def _verdict(self, value: float) -> str:
        if self.stretch is not None and self._keeps(value, self.stretch):
            return "stretch"
        return "kept" if self._keeps(value, self.budget) else "MISSED"

    def _keeps(self, value: float, limit: float) -> bool:
        return value >= limit if self.at_least else value <= limit


MIDDLE, LARGE = "1280x960", "4096x3000"
BUDGETS = (
    Budget(f"segment, {MIDDLE}, 1 client: p50 / floor", 1.08, 1.05),
    Budget(f"message, {MIDDLE}, 1 client: p50 / floor", 1.25),
    Budget(f"segment, {LARGE}, 1 client: p50 / floor", 1.05, 1.02),
    Budget(f"segment, {MIDDLE}, {CLIENTS} clients: calls/s / floor's capacity", 0.90, 0.97, at_least=True),
    Budget(f"message, {MIDDLE}, {CLIENTS} clients: calls/s / floor's capacity", 0.70, at_least=True),
    Budget(f"segment, {MIDDLE}, {CLIENTS} clients: p99 / p50", 2, 1.5),
    Budget(f"message, {MIDDLE}, {CLIENTS} clients: p99 / p50", 2, 1.5),
    Budget(f"message, {MIDDLE}, 1 client: p50 / FastAPI's", 1.0),
    Budget(f"message, {MIDDLE}, {CLIENTS} clients: calls/s / FastAPI's", 1.0, at_least=True),
    Budget("DescribeModel under overload, p99 ms", 50, 5),
    Budget("ready without models, s", 0.6),
    Budget("ready with one model, s", 1.5),
    Budget("idling, one model RUNNING, % of a core", 0.5),
)
"""Of classification; where a figure was not measured its line is left out."""


def ratios_table(results: Results, style: str) -> str:
    """A line for each size and contender."""
    lines = []
    for subject, turns in results.items():
        if subject.clients != 1:
            continue
        floor = results[subject.of("floor")]
        crowd = Subject(subject.task, subject.size, subject.contender, CLIENTS)
        many, capacity = results[crowd], results[crowd.of("floor")]
        is_floor = subject.contender == "floor"
        lines.append(
            (
                _size(subject),
                subject.contender,
                f"{percentile(medians(turns), 50) * 1000:.1f}",
                f"{percentile(all_latencies(turns), 99) * 1000:.1f}",
                "" if is_floor else str(ratio(medians(turns), medians(floor))),
                f"{percentile(rates(many), 50):.1f}",
                "" if is_floor else str(ratio(rates(many), rates(capacity))),
                "" if is_floor else f"{_tail(results, crowd):.2f}",
            )
        )
    return tabulate(lines, HEADERS, tablefmt=style, disable_numparse=True)


def figures_of(results: Results) -> dict[str, float]:
    """The figures of the table that may have a budget, by name."""
    figures = {}
    for subject, turns in results.items():
        floor, name = results[subject.of("floor")], f"{subject.contender}, {_size(subject)}"
        peer = results.get(subject.of("fastapi"))
        if subject.contender == "floor":
            continue
        if subject.clients == 1:
            figures[f"{name}, 1 client: p50 / floor"] = ratio(medians(turns), medians(floor)).value
            if peer and subject.contender != "fastapi":
                figures[f"{name}, 1 client: p50 / FastAPI's"] = ratio(medians(turns), medians(peer)).value
        else:
            name = f"{name}, {subject.clients} clients"
            figures[f"{name}: calls/s / floor's capacity"] = ratio(rates(turns), rates(floor)).value
            figures[f"{name}: p99 / p50"] = _tail(results, subject)
            if peer and subject.contender != "fastapi":
                figures[f"{name}: calls/s / FastAPI's"] = ratio(rates(turns), rates(peer)).value
    return figures


def budgets_table(figures: Figures, style: str) -> str:
    lines = [budget.told(figures[budget.figure]) for budget in BUDGETS if budget.figure in figures]
    return tabulate(lines, ("", "measured", "budget", "stretch", ""), tablefmt=style, disable_numparse=True)


def figures_table(figures: Figures, style: str) -> str:
    """What has no budget."""
    promised = {budget.figure for budget in BUDGETS}
    lines = [(name, f"{value:.3g}") for name, value in figures.items() if name not in promised]
    return tabulate(lines, ("", "measured"), tablefmt=style, disable_numparse=True)


def _tail(results: Results, subject: Subject) -> float:
    latencies = all_latencies(results[subject])
    return percentile(latencies, 99) / percentile(latencies, 50)


def _size(subject: Subject) -> str:
    return "{}x{}".format(*subject.size)
