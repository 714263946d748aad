"""What a client makes of an answer: which parts it rejects.

Clients of the original service have three rules, all of them only where the image is anomalous with enough confidence
(a normal image may have a speck in its mask): reject on that alone, or where an anomaly type covers more than a limit,
or where there are more anomaly types than a limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from agent.images.detection import Detection
from agent.packages.palette import BACKGROUND
from agent.workbench.evaluation.evaluation import Evaluation
from agent.workbench.evaluation.metrics import ImageMetrics, image_metrics


@dataclass(frozen=True)
class ClientRules:
    """When a part is rejected."""

    confidence: float = 0.0
    """Of the verdict `anomalous`, 0..1; at least this."""
    areas: Mapping[str, float] = field(default_factory=dict)
    """Anomaly type to the fraction of the image that it may cover; more is rejected."""
    types: int | None = None
    """How many anomaly types an image may show; more are rejected. None: as many as it likes."""

    def reject(self, detection: Detection) -> bool:
        """Whether the part is rejected: by the verdict alone where neither areas nor types are limited, else by any."""
        if not detection.is_anomalous or detection.confidence < self.confidence:
            return False
        if not self.areas and self.types is None:
            return True
        found = [region for region in detection.regions if region.name != BACKGROUND]
        too_large = any(region.area > self.areas.get(region.name, 1.0) for region in found)
        return too_large or (self.types is not None and len(found) > self.types)

    def metrics(self, evaluation: Evaluation) -> ImageMetrics:
        """The figures of the client's decisions instead of the model's."""
        rejected = np.array([self.reject(answer.detection) for answer in evaluation.answers], np.bool_)
        return image_metrics(evaluation.truth, rejected, evaluation.scores)

    def __str__(self) -> str:
        gate = "anomalous" + (f" with a confidence of at least {self.confidence:g}" if self.confidence else "")
        limits = [f"{name} covering more than {100 * limit:g} %" for name, limit in self.areas.items()]
        if self.types is not None:
            limits.append(f"more than {self.types} anomaly type{'' if self.types == 1 else 's'}")
        return gate + (f", and {' or '.join(limits)}" if limits else "")
