"""Says a fault once, not every time it is met. The same file in the camera client and the live view."""

from __future__ import annotations

import logging


class Complaint:
    """One thing that can go wrong for a while: logged when it begins, when it changes and when it is over."""

    def __init__(self, about: str) -> None:
        self._log = logging.getLogger(about)
        self.standing = ""
        """What is wrong now; empty when nothing is."""

    def say(self, text: str, traceback: bool = False) -> None:
        """It goes wrong, like this; `traceback`: also where, of the exception that is being handled."""
        if text != self.standing:
            self._log.warning(text, exc_info=traceback)
            self.standing = text

    def is_over(self) -> None:
        """It goes well."""
        if self.standing:
            self._log.info("again as it should be")
            self.standing = ""
