"""Row G4: pixels, secrets and paths that an error or the log might give away, each marked by a canary."""

from __future__ import annotations

import base64
import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from agent.packages.manifest import Manifest
from agent.wire import edge_agent_pb2 as wire
from tests.faults.row import Run, row
from tests.support.agent_process import (
    AgentProcess,
    describe,
    inline_request,
    names,
    refusal,
    segment,
    segment_request,
    status,
    wait_for,
)
from tests.support.checkout import ROOT
from tests.support.packages import HEIGHT, WIDTH, changed, constant_score_model, darkness_model, make_package

PIXELS, SECRET, FOLDER = "CANARY-in-pixels", "CANARY-in-a-secret", "CANARY-in-a-path"
FORGED = "2026-01-01T00:00:00Z INFO agent: FORGED"
FIXED, NOT_FINITE = "fixed", "not-finite"
SEEN = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL)


@row(
    "G4",
    "errors, states and the log never hold pixels, secrets or paths, nor a line that a client wrote",
    unit="refusals",
    full=10_000,
    short=30,
    uses_shared_agent=False,
)
def canaries(run: Run) -> None:
    assert given_away(f"a text with {PIXELS.encode().hex()} in it"), "the negative control is not found"
    environment = {"SVCUID": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET}
    with AgentProcess("--log-level", "debug", environment=environment) as agent:
        serve_packages(agent, run.folder / FOLDER)
        stub = agent.stub()
        internal = (str(agent.folder), str(ROOT), sys.prefix, "/dev/shm", "/proc", "Traceback", "site-packages")
        with every_bad_request(run.folder) as requests:
            bad = itertools.cycle(requests)
            for _ in run.steps():
                request = next(bad)
                code, sentence = refusal(lambda request=request: stub.DetectAnomalies(request))
                assert code in SEEN, sentence
                assert not given_away(sentence), sentence
                assert not any(text in sentence for text in internal), sentence
                run.saw(code.name)
            assert run.reached < len(requests) or set(run.outcomes) == {code.name for code in SEEN}
        for component in names(stub):
            message = describe(stub, component).status_message
            assert not given_away(message), message
            assert not any(text in message for text in internal), message
        assert agent.stop() == 0
        log = agent.log_text()
        assert not given_away(log)
        assert not any(line.startswith(FORGED) for line in log.splitlines())
        run.figures["lines of the log searched"] = str(log.count("\n"))


def given_away(text: str) -> bool:
    """Whether a canary is in it, as it is or in a form that programs write bytes in."""
    for canary in (PIXELS, SECRET, FOLDER):
        content = canary.encode()
        # Without the ends, which depend on what lies beside the canary.
        encoded = base64.b64encode(content).decode()[:8]
        if any(form in text for form in (canary, content.hex(), str(list(content))[1:-1], encoded)):
            return True
    return False


def serve_packages(agent: AgentProcess, folder: Path) -> None:
    """Good models, and one for each way in which a package fails."""
    agent.run_model(FIXED, make_package(folder / FIXED))
    not_finite = constant_score_model(float("nan"))
    agent.run_model(NOT_FINITE, make_package(folder / NOT_FINITE, task="classification", model=not_finite))
    other_bytes = make_package(folder / "other-bytes")
    (other_bytes / "model.onnx").write_bytes(PIXELS.encode())
    unknown_operator = darkness_model()
    unknown_operator.graph.node[0].op_type = "NoSuchOperator"
    bad = {
        "no-package": folder,
        "other-bytes": other_bytes,
        "unknown-operator": make_package(folder / "unknown-operator", model=unknown_operator),
        "self-test": make_package(folder / "self-test", change=expect_an_anomaly),
    }
    stub = agent.stub()
    for component, package in bad.items():
        agent.register(component, package)
    wait_for("all to be listed", lambda: bad.keys() <= set(names(stub)))
    for component in bad:
        stub.StartModel(wire.StartModelRequest(model_component=component))
    wait_for("all to have failed", lambda: all(status(stub, component) == wire.FAILED for component in bad))


def expect_an_anomaly(manifest: Manifest) -> Manifest:
    return changed(manifest, self_test=[changed(test, is_anomalous=True) for test in manifest.self_test])


@contextmanager
def every_bad_request(folder: Path) -> Iterator[list[wire.DetectAnomaliesRequest]]:
    """One of each kind, with canaries for pixels, in what lies around them, and in names."""
    marked = np.frombuffer((PIXELS.encode() * WIDTH * HEIGHT)[: WIDTH * HEIGHT * 3], np.uint8)
    marked = marked.reshape(HEIGHT, WIDTH, 3)
    secret = folder / "secret"
    secret.write_bytes(SECRET.encode() * WIDTH * HEIGHT)
    with segment(marked.tobytes()) as name, segment(b"") as link:
        path = Path("/dev/shm") / link.removeprefix("/")
        path.unlink()
        path.symlink_to(secret)
        yield [
            inline_request(NOT_FINITE, marked),
            inline_request(FIXED, marked.reshape(WIDTH, HEIGHT, 3)),
            with_bytes(marked.tobytes() + b"x"),
            with_bytes(marked.tobytes()[:-1]),
            with_bytes(b""),
            segment_request(FIXED, WIDTH, HEIGHT, name, offset=1),
            segment_request(FIXED, WIDTH, HEIGHT, name, mask_offset=0),
            segment_request(FIXED, WIDTH, HEIGHT, name, mask_offset=marked.nbytes),
            segment_request(FIXED, WIDTH, HEIGHT, link),
            segment_request(FIXED, WIDTH, HEIGHT, f"..{secret}"),
            segment_request(FIXED, WIDTH, HEIGHT, f"/no-segment\n{FORGED}"),
            inline_request("no-model", marked),
            inline_request(f"model\n{FORGED}", marked),
            inline_request(f"model\r{FORGED}\u2028{FORGED}", marked),
        ]


def with_bytes(content: bytes) -> wire.DetectAnomaliesRequest:
    bitmap = wire.Bitmap(width=WIDTH, height=HEIGHT, byte_data=content)
    return wire.DetectAnomaliesRequest(model_component=FIXED, bitmap=bitmap)
