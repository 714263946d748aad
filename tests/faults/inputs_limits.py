"""Rows A: how much a client may send, and take."""

from __future__ import annotations

import contextlib
from pathlib import Path

import grpc

from agent.images.bitmap import MAX_BYTES, MAX_SIDE
from agent.rpc.health import EDGE_AGENT
from agent.rpc.server import ENVELOPE
from agent.wire import edge_agent_pb2 as wire
from tests.faults.inputs_encoding import bitmap, block, byte_data, detect_bytes, raw_calls, sides
from tests.faults.inputs_models import also_running
from tests.faults.row import ANY_SIZE, Run, row
from tests.support.agent_process import LARGE_REPLIES, PATIENCE, detect, inline_request, refusal
from tests.support.packages import grey, make_package

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

# --- A4: requests ---

LIMIT = MAX_BYTES + ENVELOPE
"""Bytes of the largest request."""
UNKNOWN_FIELD = 15
"""Of no message in the contract; what it holds is ignored."""


@row(
    "A4",
    "a request of one byte below the limit, at the limit: an answer; above it: RESOURCE_EXHAUSTED",
    unit="requests",
    full=3000,
    short=3,
)
def requests_at_the_limit(run: Run) -> None:
    pid = run.agent.running.pid
    package = make_package(run.folder / "largest", task="classification", any_size=True)
    with also_running(run.agent, "largest", package), raw_calls(run.agent) as calls:
        before = _forget_peak_memory(pid)
        for number in run.steps():
            size = LIMIT - 1 + number % 3
            try:
                calls["DetectAnomalies"](_request_of(size), timeout=PATIENCE)
                code = grpc.StatusCode.OK
            except grpc.RpcError as error:
                code = error.code()
            assert code is (EXHAUSTED if size > LIMIT else grpc.StatusCode.OK), size - LIMIT
            run.saw(code.name)
    rise = _peak_memory(pid) - before
    run.figures["peak memory of the agent rises by"] = f"{rise >> 20} MiB"
    assert rise < 10 * LIMIT  # some copies of one message, but never of all


def _request_of(size: int) -> bytes:
    """A request of exactly so many bytes for the largest image, a field of a later definition at its end."""
    request = detect_bytes("largest", bitmap(sides(MAX_SIDE, MAX_SIDE), byte_data(bytes(MAX_BYTES))))
    rest = size - len(request)
    tag_and_length = len(block(UNKNOWN_FIELD, bytes(rest))) - rest
    request += block(UNKNOWN_FIELD, bytes(rest - tag_and_length))
    assert len(request) == size
    return request


def _forget_peak_memory(pid: int) -> int:
    """Starts the peak anew where the kernel lets us (5 in clear_refs, see proc(5)); what it is then, in bytes."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _peak_memory(pid)


def _peak_memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


# --- A5: replies ---

SAFE_SIDE = 1180
"""A mask of so many pixels a side still fits into the 4 MiB that a client on default options takes."""


@row(
    "A5",
    "a mask too large for a client on default options: RESOURCE_EXHAUSTED, its channel and other calls on it go on",
    unit="replies",
    full=1000,
    short=2,
)
def replies_over_the_clients_limit(run: Run) -> None:
    stub, ready_for_it = run.agent.stub(), run.agent.stub(LARGE_REPLIES)
    small = inline_request(ANY_SIZE, grey(0))
    assert not detect(stub, inline_request(ANY_SIZE, grey(255, SAFE_SIDE, SAFE_SIDE))).is_anomalous
    for _ in run.steps():
        width, height = (run.random.randint(SAFE_SIDE + 3, 1400) for _ in "wh")
        large = inline_request(ANY_SIZE, grey(255, width, height))
        beside: grpc.Future = stub.DetectAnomalies.future(small, timeout=PATIENCE)
        code, sentence = refusal(lambda large=large: detect(stub, large))
        assert code is EXHAUSTED, sentence
        run.saw(code.name)
        assert beside.result().detect_anomaly_result.is_anomalous
        assert detect(stub, small).is_anomalous
        mask = detect(ready_for_it, large).anomaly_mask
        assert (mask.width, mask.height, len(mask.byte_data)) == (width, height, width * height * 3)


# --- A9: methods and metadata ---

UNKNOWN_METHODS = (
    f"/{EDGE_AGENT}/Nope",
    f"/{EDGE_AGENT}/detectanomalies",
    f"/{EDGE_AGENT}/DetectAnomalies/",
    f"/{EDGE_AGENT}/" + "m" * 4000,
    f"/{EDGE_AGENT}",
    "/AWS.LookoutVision.EdgeAgent2/ListModels",
    "/a/b",
    "/a/../b/%00%0a",
    "//",
    "no-slash",
)


@row(
    "A9",
    "unknown methods: UNIMPLEMENTED; too much metadata: RESOURCE_EXHAUSTED; the channel goes on",
    unit="calls",
    full=20_000,
    short=20,
)
def unknown_methods_and_metadata(run: Run) -> None:
    with grpc.insecure_channel(f"unix:{run.agent.socket}") as channel:
        listing = channel.unary_unary(f"/{EDGE_AGENT}/ListModels", None, wire.ListModelsResponse.FromString)
        for number in run.steps():
            unknown = channel.unary_unary(UNKNOWN_METHODS[number % len(UNKNOWN_METHODS)])
            code, _ = refusal(lambda unknown=unknown: unknown(run.random.randbytes(20), timeout=PATIENCE))
            assert code is grpc.StatusCode.UNIMPLEMENTED
            run.saw(code.name)
            if number % 5 == 0:  # gRPC takes its time over these
                headers = _too_much_metadata(run)
                code, sentence = refusal(lambda headers=headers: listing(b"", timeout=PATIENCE, metadata=headers))
                assert code is EXHAUSTED, sentence
                run.saw(code.name)
            odd = [("x-odd-bin", run.random.randbytes(1000)), ("user-agent", "%s{}" * 100)]
            assert len(listing(b"", timeout=PATIENCE, metadata=odd).models) == 2
            run.saw("OK")


def _too_much_metadata(run: Run) -> list[tuple[str, str]]:
    """Beyond gRPC's hard limit of 16 KiB; up to a MiB, or ten thousand headers."""
    if run.random.random() < 0.5:
        return [("x-large", "a" * run.random.choice((2**14, 2**17, 2**20)))]
    return [(f"x-{number}", "a") for number in range(run.random.choice((1000, 10_000)))]
