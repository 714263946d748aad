"""The port at which metrics are read: there when it is set, whatever its clients do."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.error import HTTPError

import pytest

from agent.metrics import endpoint as endpoint_module
from agent.metrics.catalogue import AgentFigures
from agent.metrics.endpoint import MetricsEndpoint
from agent.metrics.scrape_server import MOST_CLIENTS
from tests.support.agent_process import wait_for
from tests.support.scraping import free_port, get, is_served, scrape

NOTHING = AgentFigures("1.3.0", {}, 0, 0, ())


class Figures:
    """What a scrape asks."""

    def __init__(self) -> None:
        self.fails = False
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self) -> AgentFigures:
        self.may_answer.wait(20)
        if self.fails:
            raise ZeroDivisionError
        return NOTHING


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
def endpoint(figures: Figures) -> Iterator[MetricsEndpoint]:
    endpoint = MetricsEndpoint(figures, retry=0.01)
    yield endpoint
    endpoint.close()


@pytest.fixture
def port(endpoint: MetricsEndpoint) -> int:
    """At which `endpoint` serves."""
    port = free_port()
    endpoint.use_port(port)
    wait_for("the endpoint", lambda: is_served(port))
    return port


def status_of(port: int, path: str, method: str = "GET", body: bytes | None = None) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def raw(port: int, request: bytes) -> bytes:
    """All that is answered to these bytes; the connection is closed for writing after them."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as client:
        client.sendall(request)
        with suppress(OSError):  # the other side may have hung up already
            client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(1 << 16):
            answer += piece
        return answer


# --- what it answers


def test_get_of_metrics_is_the_one_thing_that_is_answered(port: int) -> None:
    assert scrape(port).value("edge_agent_info", version="1.3.0") == 1
    assert status_of(port, "/metrics?x=1") == 200
    for path in ("/", "/favicon.ico", "/metrics/", "/metricsx", "/%6detrics", "/../metrics"):
        assert status_of(port, path) == 404, path
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        assert status_of(port, "/metrics", method, b"x" if method in ("POST", "PUT", "PATCH") else None) == 501


def test_a_scraper_may_ask_for_openmetrics_compression_and_single_metrics(port: int) -> None:
    headers = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert gzip.decompress(answer.read()).endswith(b"# EOF\n")
    assert get(port, "/metrics?name[]=edge_agent_images_in_hand").splitlines()[2:] == ["edge_agent_images_in_hand 0.0"]


def test_it_listens_on_loopback_alone(port: int) -> None:
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    listening = [columns[1] for columns in table if columns[3] == "0A"]  # TCP_LISTEN
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


# --- clients of any kind


NO_REQUESTS = (
    b"",
    b"\r\n\r\n",
    b"\x00\xff" * 500,
    b"GET\r\n\r\n",
    b"GET /metrics HTTP/9.9\r\n\r\n",
    b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
    b"GET http://[/metrics HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS handshake
)


def test_what_is_no_request_gets_an_error_or_nothing_and_the_next_is_answered(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    for request in NO_REQUESTS:
        try:
            answer = raw(port, request)
        except OSError:  # it did not read all of it, and has gone
            answer = b""
        assert b" 200 OK" not in answer[:20], request[:80]
        assert is_served(port), request[:80]
    assert capfd.readouterr() == ("", "")


def test_clients_that_stay_silent_keep_nobody_out_and_take_no_more_than_their_places(port: int) -> None:
    with ExitStack() as silent:
        clients = [silent.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(5 * MOST_CLIENTS)]
        assert is_served(port)
        wait_for("those that had to go", lambda: client_threads() <= MOST_CLIENTS)
        clients[0].settimeout(20)
        assert clients[0].recv(1) == b"", "the one that had been there longest had to go"


def client_threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def test_clients_that_leave_before_the_answer_disturb_nobody(
    port: int, figures: Figures, capfd: pytest.CaptureFixture[str]
) -> None:
    figures.may_answer.clear()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # leaves with a reset
    figures.may_answer.set()
    assert is_served(port)
    assert capfd.readouterr() == ("", "")


def test_a_scrape_that_fails_is_an_error_in_the_log_and_the_next_is_answered(
    port: int, figures: Figures, caplog: pytest.LogCaptureFixture
) -> None:
    figures.fails = True
    assert status_of(port, "/metrics") == 500
    assert "the metrics could not be collected" in caplog.messages
    figures.fails = False
    assert is_served(port)


# --- ports


def test_a_port_that_is_taken_is_told_once_and_served_when_it_is_free(
    endpoint: MetricsEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        endpoint.use_port(port)
        wait_for("the complaint", lambda: caplog.messages != [])
        first = len(caplog.messages)
        endpoint.use_port(port)
    wait_for("the endpoint", lambda: is_served(port))
    complaints = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (first, len(complaints)) == (1, 1)
    assert f"no metrics: port {port} of 127.0.0.1 cannot be used (Address already in use)" in complaints[0].message
    assert complaints[0].message.endswith("Free the port, or set another metrics_port")


def test_a_change_of_the_port_takes_effect_and_none_ends_it(endpoint: MetricsEndpoint, port: int) -> None:
    other = free_port()
    endpoint.use_port(other)
    wait_for("the new port", lambda: is_served(other))
    assert not is_served(port)
    endpoint.use_port(0)
    wait_for("the end", lambda: not is_served(other))
    endpoint.use_port(port)
    wait_for("the first port", lambda: is_served(port))


def test_without_a_port_there_is_no_thread_and_closing_ends_the_one_there_is(figures: Figures) -> None:
    endpoint = MetricsEndpoint(figures)
    endpoint.use_port(0)
    assert endpoint_threads() == 0
    endpoint.close()
    endpoint = MetricsEndpoint(figures)
    endpoint.use_port(free_port())
    assert endpoint_threads() == 1
    endpoint.close()
    assert endpoint_threads() == 0


def endpoint_threads() -> int:
    return sum(thread.name == "metrics" for thread in threading.enumerate())


def test_a_device_without_threads_has_no_metrics_until_they_are_set_again(
    endpoint: MetricsEndpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Unstartable(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    port = free_port()
    with monkeypatch.context() as patched:
        patched.setattr(endpoint_module.threading, "Thread", Unstartable)
        endpoint.use_port(port)
    assert "the device gives the agent no thread for them (can't start new thread)" in caplog.text
    endpoint.use_port(port)
    wait_for("the endpoint", lambda: is_served(port))
