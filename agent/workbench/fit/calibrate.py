"""The threshold from good images alone, and the scale on which scores are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.workbench.fit.graph_builder import GraphBuilder

DEVIATIONS_PER_MAD = 1.4826
"""For normally distributed values the standard deviation is this many median absolute deviations."""
SMALLEST_SIGMA = 0.01
"""Share of the median below which sigma does not go: a set of equal photographs would else allow no difference."""


@dataclass(frozen=True)
class Calibration:
    """Shows a distance as sigmoid((distance - threshold) / sigma): 0..1, and the threshold is 0.5."""

    threshold: float
    sigma: float

    def __call__(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        """`distances`, calibrated."""
        shown: NDArray[np.float64] = 1 / (1 + np.exp(-(distances - self.threshold) / self.sigma))
        return shown

    def add_to(self, graph: GraphBuilder, distances: str) -> str:
        """The same as nodes of a graph."""
        above = graph.node("Sub", distances, graph.constant(self.threshold))
        return graph.node("Sigmoid", graph.node("Mul", above, graph.constant(1 / self.sigma)))


def calibrate(scores: NDArray[np.float64], k: float) -> Calibration:
    """Threshold = median + k * 1.4826 * MAD of cross-validated `scores` (n,) of good images.

    Median and MAD stay where they are when one of the images is not so good after all; mean and standard deviation
    do not.
    """
    median = float(np.median(scores))
    deviation = DEVIATIONS_PER_MAD * float(np.median(np.abs(scores - median)))
    sigma = max(deviation, SMALLEST_SIGMA * median)
    return Calibration(median + k * sigma, sigma)
