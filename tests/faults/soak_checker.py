"""The judge of long runs: from samples of what a process holds to whether it holds more and more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.faults.oracle import resident_bytes

MB = 1 << 20
WARM_UP = 0.25
"""Fraction of the samples that are not judged: caches and allocators fill."""
LEAST_SAMPLES = 12
BLOCKS = 30
"""Neighbouring samples are joined to at most so many: their errors are not independent, those of blocks nearly are."""
CERTAINTY = 3.0
"""Standard errors by which what is measured must exceed what is allowed: a short or noisy run flags nothing wrongly."""
NOISE, UNSETTLED_NOISE = 16 * MB, 256 * MB
"""What allocators take in time by themselves, and what they may take while every coincidence of large images is new to
them; less growth says nothing."""
TO_DEVIATION = 1.4826
"""Median absolute deviation to standard deviation, of normal noise."""
POOLED_THREADS = 12
"""By which an agent's pools may still grow: now and then a call comes just before a thread says that it is free, and
gets one of its own; ever more seldom, the more there are."""
ALLOWED_IN_TOTAL = 20 * MB
"""Growth from the middle of a run to its end, however slow."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """What a process held after so many steps (calls, load cycles), at a moment when it had nothing to do."""

    steps: int
    resident: int
    """Bytes that no file backs."""
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int, steps: int) -> Sample:
        process = Path("/proc") / str(pid)
        descriptors, threads = (len(list((process / folder).iterdir())) for folder in ("fd", "task"))
        return cls(steps, resident_bytes(pid), descriptors, threads)


@dataclass(frozen=True)
class Trend:
    """Where a series of samples leads, after the warm-up."""

    slope: float
    """Bytes per step, by least squares."""
    error: float
    """Standard error of the slope."""
    steady_slope: float
    """Bytes per step, as the median of the slopes between any two blocks: far below `slope` after a single jump."""
    growth: float
    """Bytes, along the fitted line."""
    scatter: float
    """Bytes, of one sample around the line (standard deviation, outliers left out)."""
    total: float
    """Bytes at the end beyond those in the middle (medians)."""
    total_error: float
    """Standard error of the total."""
    descriptors: float
    threads: float
    """At the end beyond those in the middle (medians)."""
    allowed: float
    """Bytes per step."""
    has_settled: bool
    """Whether memory should have been at its height by the middle."""
    spare_threads: int

    @property
    def complaints(self) -> list[str]:
        """What grows for sure; empty where nothing does."""
        found = []
        noise = NOISE if self.has_settled else UNSETTLED_NOISE
        exceeds_noise = self.growth > max(noise, CERTAINTY * self.scatter)
        is_jump = self.steady_slope < self.slope / 2
        if exceeds_noise and not is_jump and self.slope - CERTAINTY * self.error > self.allowed:
            found.append(f"memory grows by {self.slope:.0f} bytes per step")
        if self.has_settled and self.total - CERTAINTY * self.total_error > ALLOWED_IN_TOTAL:
            found.append(f"memory is {self.total / MB:.0f} MB above that in the middle")
        if self.descriptors > 0:
            found.append(f"{self.descriptors:g} descriptors more than in the middle")
        if self.threads > self.spare_threads:
            found.append(f"{self.threads:g} threads more than in the middle")
        return found

    @property
    def is_shown_flat(self) -> bool:
        """Whether the run was long enough to say that nothing grows faster than allowed."""
        return not self.complaints and self.slope + CERTAINTY * self.error < self.allowed

    def told(self, per: int, unit: str) -> str:
        """For people: slope and its error in MB per so many steps, and what came of it."""
        verdict = "grows" if self.complaints else "flat" if self.is_shown_flat else "too short a run to tell"
        slope, error = (value * per / MB for value in (self.slope, self.error))
        return f"{slope:+.3g} ± {error:.2g} MB per {unit}, {self.total / MB:+.1f} MB from the middle ({verdict})"


def judge(samples: Sequence[Sample], allowed: float, settled: int = 0, spare_threads: int = 0) -> Trend:
    """The trend of `samples`, of which there must be at least LEAST_SAMPLES.

    `allowed`: bytes of growth per step. `settled`: steps before which new heights of memory are no surprise.
    `spare_threads`: by which pools may yet grow.
    """
    assert len(samples) >= LEAST_SAMPLES, f"{len(samples)} samples tell nothing"
    kept = samples[math.ceil(len(samples) * WARM_UP) :]
    steps, resident, descriptors, threads = (
        np.array([getattr(sample, field) for sample in kept], float)
        for field in ("steps", "resident", "descriptors", "threads")
    )
    slope, error, steady_slope = _slopes(_in_blocks(steps), _in_blocks(resident))
    around = resident - slope * steps
    scatter = TO_DEVIATION * float(np.median(np.abs(around - np.median(around))))
    return Trend(
        slope=slope,
        error=error,
        steady_slope=steady_slope,
        growth=slope * float(steps[-1] - steps[0]),
        scatter=scatter,
        total=_from_the_middle(resident),
        # Of a difference of two medians.
        total_error=scatter * math.sqrt(math.pi / 2) * math.sqrt(2 / _fifth(resident)),
        descriptors=_from_the_middle(descriptors),
        threads=_from_the_middle(threads),
        allowed=allowed,
        has_settled=bool(np.median(steps) >= settled),
        spare_threads=spare_threads,
    )


def _slopes(x: Values, y: Values) -> tuple[float, float, float]:
    """By least squares, its standard error, and the median of the slopes between any two points."""
    away = x - x.mean()
    slope = float(away @ y / (away @ away))
    left = y - y.mean() - slope * away
    error = math.sqrt(float(left @ left) / (len(left) - 2) / float(away @ away))
    first, second = np.triu_indices(len(x), 1)
    return slope, error, float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def _in_blocks(values: Values) -> Values:
    return np.array([np.median(block) for block in np.array_split(values, min(BLOCKS, len(values)))])


def _from_the_middle(values: Values) -> float:
    """The median of the last fifth less that of the fifth in the middle."""
    fifth = _fifth(values)
    middle = (len(values) - fifth) // 2
    return float(np.median(values[-fifth:]) - np.median(values[middle : middle + fifth]))


def _fifth(values: Values) -> int:
    return math.ceil(len(values) / 5)
