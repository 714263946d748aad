"""What can inspect images, whatever it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.images.detection import Detection


@dataclass(frozen=True)
class InspectedModel:
    """Which model it is that inspects."""

    name: str
    version: str = ""
    """Empty where nobody tells (an agent tells it with its first answer)."""
    arn: str = ""
    threshold: float | None = None
    """Score from which on an image is anomalous; None where nobody tells before an answer does."""
    labels: tuple[str, ...] = ()
    """For segmentation: background first; empty where nobody tells."""
    training_images: int | None = None


class Inspector(Protocol):
    """A model that answers."""

    @property
    def model(self) -> InspectedModel:
        """What is known of the model by now."""

    def inspect(self, pixels: NDArray[np.uint8]) -> Detection:
        """The answer to `pixels` (uint8, (height, width, 3), RGB).

        Raises:
            ImageNotInspected: this image gets no answer; the next one may.
            Refusal: nothing will be answered any more.
        """
