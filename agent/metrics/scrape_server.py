"""The HTTP server that answers GET /metrics, on loopback only, whatever else its clients do."""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PATH = "/metrics"
MOST_CLIENTS = 8
"""At a time; for one more, the one that has been there longest has to go: clients that send nothing keep nobody out."""
READ_LIMIT = 5.0
"""Seconds that a client may leave a read or write waiting."""
ACCEPT_STEP = 0.25
"""Seconds after which `handle_request` returns without one."""


class ScrapeServer(ThreadingMixIn, TCPServer):
    """Serves a registry; each scrape in a thread of its own, so that none waits for a client that is slow.

    (The library's own server answers at every path, keeps a thread for every client that stays silent, and asks for
    this host's name, which may take long where there is no network.)
    """

    allow_reuse_address = True
    daemon_threads = True
    timeout = ACCEPT_STEP
    request_queue_size = 64  # with the usual 5, who comes behind a handful of others waits for a second or three

    def __init__(self, port: int, registry: CollectorRegistry) -> None:
        """Raises OSError where the port is not to be had."""
        self._clients: deque[socket.socket] = deque()
        self._lock = Lock()
        super().__init__((LOOPBACK, port), _Handler.factory(registry))

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            # Out of descriptors: who knocks knocks on, and asking again at once would take a whole core.
            time.sleep(ACCEPT_STEP)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._clients.append(request)
            if len(self._clients) > MOST_CLIENTS:
                with suppress(OSError):  # it has gone already
                    self._clients.popleft().shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock, suppress(ValueError):  # it had to go
            self._clients.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that went away, or stayed silent; or no thread for it.
        log.debug("a client of the metrics got no answer", exc_info=True)


class _Handler(MetricsHandler):
    timeout = READ_LIMIT

    def do_GET(self) -> None:
        if urlsplit(self.path).path != PATH:
            self.send_error(404)
            return
        try:
            super().do_GET()
        except OSError:  # the client's doing
            raise
        except Exception:
            log.exception("the metrics could not be collected")
            self.send_error(500)
