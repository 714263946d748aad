"""Metrics at the port that the settings name, as long as they name one: nothing about it ever ends the agent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.metrics.catalogue import AgentFigures

if TYPE_CHECKING:
    from agent.metrics.scrape_server import ScrapeServer

log = logging.getLogger(__name__)

RETRY = 5.0
"""Seconds after which a port that could not be had is tried again."""


class MetricsEndpoint:
    """Serves metrics in a thread of its own, from the first port on. From several threads at once."""

    def __init__(self, figures: Callable[[], AgentFigures], retry: float = RETRY) -> None:
        self._figures, self._retry = figures, retry
        self._changed = threading.Condition()
        self._port = 0
        self._complained_of = 0
        """The port that the log was told cannot be had."""
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def use_port(self, port: int) -> None:
        """Serves at this port from now on, at none where it is 0; returns at once and never raises."""
        with self._changed:
            self._port = port
            self._changed.notify_all()
            if port and self._thread is None:
                self._thread = self._started()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _started(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._serve, name="metrics", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            log.error("no metrics: the device gives the agent no thread for them (%s); set metrics_port again", error)
            return None
        return thread

    # --- the thread ---

    def _serve(self) -> None:
        try:
            # Here, where nobody waits for it: the library takes 18 ms to import.
            from agent.metrics.collector import registry_of
            from agent.metrics.scrape_server import ScrapeServer
        except ImportError as error:
            log.error("no metrics: %s is not installed; install the agent again", error.name)
            return
        registry = registry_of(self._figures)
        while (port := self._next_port()) is not None:
            try:
                with ScrapeServer(port, registry) as server:
                    self._serve_at(port, server)
            except OSError as error:
                self._complain(port, error)
                self._wait_a_while(port)

    def _next_port(self) -> int | None:
        """Waits while there is none; None when this is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._port or self._is_closed)
            return None if self._is_closed else self._port

    def _is_left(self, port: int) -> bool:
        return self._is_closed or self._port != port

    def _serve_at(self, port: int, server: ScrapeServer) -> None:
        log.info("metrics: http://127.0.0.1:%d/metrics", port)
        self._complained_of = 0
        while not self._is_left(port):
            server.handle_request()

    def _wait_a_while(self, port: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_left(port), self._retry)

    def _complain(self, port: int, error: OSError) -> None:
        if self._complained_of != port:
            self._complained_of = port
            log.error(
                "no metrics: port %d of 127.0.0.1 cannot be used (%s); the agent serves on and tries again every %g s. "
                "Free the port, or set another metrics_port",
                port,
                error.strerror,
                self._retry,
            )
