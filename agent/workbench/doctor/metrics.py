"""Whether the agent's metrics can be read where the settings say."""

from __future__ import annotations

import http.client

from agent.settings import Settings
from agent.workbench.doctor.finding import Finding

TIME_LIMIT = 2.0
"""Seconds."""
OURS = b"edge_agent_info"
"""In what the agent answers."""


def metrics_finding(settings: Settings) -> Finding:
    port = settings.metrics_port
    if port == 0:
        return Finding("metrics", "none are served (setting metrics_port)")
    try:
        status, content = _get(port)
    except ConnectionRefusedError:
        return Finding("metrics", f"port {port} is free; an agent with this setting serves {_url(port)}")
    except (OSError, http.client.HTTPException):
        status, content = 0, b""
    if status == 200 and OURS in content:
        return Finding("metrics", f"an agent serves {_url(port)}")
    todo = "set another metrics_port, or end what answers there (ss -ltnp tells)"
    return Finding("metrics", f"something else than the agent listens at port {port}", "problem", todo)


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/metrics"


def _get(port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIME_LIMIT)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
