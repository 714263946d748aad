"""From the agent's answer to the verdict on the part."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from camera_client.inspection import Decision
from camera_client.settings import Rules

if TYPE_CHECKING:
    from edge_agent_client import Result

BACKGROUND = "background"


def decide(result: Result, rules: Rules) -> Decision:
    """The verdict on one picture.

    Areas and types count only where the picture is anomalous with enough confidence: the mask of a normal picture may
    have a speck.
    """
    distance = abs(result.anomaly_score - result.anomaly_threshold)
    if distance < rules.uncertain_band:
        return Decision("uncertain", f"the score is {distance:.3f} from the threshold")
    if not result.is_anomalous:
        return Decision("pass", "normal")
    if result.confidence < rules.confidence:
        return Decision("uncertain", f"anomalous with a confidence of only {result.confidence:.3f}")
    if not rules.area_limits and rules.most_types is None:
        return Decision("reject", "anomalous")
    return _by_what_was_found(result, rules)


def _by_what_was_found(result: Result, rules: Rules) -> Decision:
    areas = {found.name: found.total_percentage_area for found in result.anomalies if found.name != BACKGROUND}
    for name, area in areas.items():
        limit = rules.area_limits.get(name, 1.0)
        if area > limit:
            return Decision("reject", f"{name} covers {area:.2%}, more than {limit:.2%}")
    if rules.most_types is not None and len(areas) > rules.most_types:
        return Decision("reject", f"{len(areas)} anomaly types, more than {rules.most_types}")
    return Decision("pass", "anomalous within the limits")


class Debounce:
    """Confirms rejections: N of the last M pictures, in the order they were captured."""

    def __init__(self, rules: Rules) -> None:
        self._needed = rules.reject_after
        self._last: deque[bool] = deque(maxlen=rules.out_of)

    def confirm(self, decision: Decision) -> Decision:
        """The verdict with those before taken into account; a rejection not (yet) confirmed is uncertain."""
        self._last.append(decision.verdict == "reject")
        count = sum(self._last)
        if self._last.maxlen == 1 or count == 0:
            return decision
        said = f"{count} of the last {len(self._last)} pictures; {decision.reason}"
        if count >= self._needed:
            return Decision("reject", said)
        return Decision("uncertain", said) if decision.verdict == "reject" else decision
