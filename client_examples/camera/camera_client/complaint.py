"""Says a fault once, not with every frame."""

from __future__ import annotations

import logging


class Complaint:
    """One thing that can go wrong for a while: logged when it begins, when it changes and when it is over."""

    def __init__(self, about: str) -> None:
        self._log = logging.getLogger(about)
        self._last = ""

    @property
    def is_standing(self) -> bool:
        """Whether it goes wrong now."""
        return bool(self._last)

    def say(self, text: str, traceback: bool = False) -> None:
        """It goes wrong, like this; `traceback`: also where, of the exception that is being handled."""
        if text != self._last:
            self._log.warning(text, exc_info=traceback)
            self._last = text

    def is_over(self) -> None:
        """It goes well."""
        if self._last:
            self._log.info("again as it should be")
            self._last = ""
