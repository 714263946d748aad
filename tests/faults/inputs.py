"""Rows A: what a client may send. Here images, their sizes, and names."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable

import grpc
import numpy as np
from numpy.typing import NDArray

from agent.wire import edge_agent_pb2 as wire
from tests.faults.inputs_encoding import (
    as_int32,
    bitmap,
    byte_data,
    detect_bytes,
    handle,
    mask_params,
    raw_calls,
    sides,
)
from tests.faults.inputs_log import FORGED, LogReader
from tests.faults.inputs_models import also_running, table_model
from tests.faults.row import ANY_SIZE, CLASSIFIER, Run, row
from tests.support.agent_process import PATIENCE, AgentProcess, detect, inline_request, refusal, segment
from tests.support.packages import HEIGHT, WIDTH, grey, make_package

INVALID = grpc.StatusCode.INVALID_ARGUMENT
SIZE = WIDTH * HEIGHT * 3


# --- A1 to A3: sizes and sources ---

WRONG_SIDES = (0, 1, 63, 4097, 2**16, 2**31 - 1, 2**31, 2**32, 2**63, 2**64 - 1, -1, -64, -(2**31), -(2**63))


@row(
    "A1",
    "width or height 0, negative, 2^31-1, 2^63, ...: INVALID_ARGUMENT that says them",
    unit="requests",
    full=100_000,
    short=50,
)
def sides_out_of_range(run: Run) -> None:
    sources = (byte_data(b""), byte_data(bytes(SIZE)), handle(4, "/no-such-segment", SIZE), handle(4, "..", 2**63))
    with raw_calls(run.agent) as calls:
        for _ in run.steps():
            pair = [_wrong_side(run.random), run.random.choice((64, WIDTH, 4096, _wrong_side(run.random)))]
            run.random.shuffle(pair)
            request = detect_bytes(ANY_SIZE, bitmap(sides(*pair), run.random.choice(sources)))
            code, sentence = refusal(lambda request=request: calls["DetectAnomalies"](request, timeout=PATIENCE))
            assert code is INVALID, sentence
            assert f" {as_int32(pair[0])} x {as_int32(pair[1])};" in sentence, (pair, sentence)
            run.saw(code.name)


def _wrong_side(chance: random.Random) -> int:
    """A number that is no side of an image in 32 bits, with anything in the bits above them."""
    if chance.random() < 0.5:
        return chance.choice(WRONG_SIDES)
    wrong = chance.choice((chance.randint(-(2**31), 63), chance.randint(4097, 2**31 - 1)))
    return wrong + (chance.getrandbits(31) << 32)


@row("A2", "bytes that are not width x height x 3: INVALID_ARGUMENT", unit="requests", full=100_000, short=50)
def wrong_length(run: Run) -> None:
    stub = run.agent.stub()
    for _ in run.steps():
        height, width = run.random.randint(64, 100), run.random.randint(64, 100)
        right = {width * height * 3, -(-width * 3 // 4) * 4 * height}
        counts = {width * height * depth for depth in (0, 1, 2, 4, 6, 12)} | {run.random.randint(0, 60_000)}
        counts |= {count + change for count in right for change in (-1, 1)}
        count = run.random.choice(sorted(counts - right))
        sent = wire.Bitmap(width=width, height=height, byte_data=bytes(count))
        request = wire.DetectAnomaliesRequest(model_component=ANY_SIZE, bitmap=sent)
        code, sentence = refusal(lambda request=request: detect(stub, request))
        assert code is INVALID, sentence
        assert str(count) in sentence and str(width * height * 3) in sentence, sentence
        run.saw(code.name)


@row(
    "A3",
    "no image: INVALID_ARGUMENT; two images, or one in parts: the last counts, as everywhere in protobuf; two handles "
    "for the mask: INVALID_ARGUMENT",
    unit="requests",
    full=100_000,
    short=50,
)
def neither_or_both_sources(run: Run) -> None:
    dark, bright = bytes(SIZE), b"\xff" * SIZE
    with segment(bright) as name, raw_calls(run.agent) as calls:
        cases = _sources(dark, bright, name)
        for number in run.steps():
            parts, expected = cases[number % len(cases)]
            try:
                answer = calls["DetectAnomalies"](detect_bytes(ANY_SIZE, *parts), timeout=PATIENCE)
            except grpc.RpcError as error:
                assert (error.code(), expected) == (INVALID, None), (number % len(cases), error.details())
                run.saw(error.code().name)
            else:
                result = wire.DetectAnomaliesResponse.FromString(answer).detect_anomaly_result
                assert result.is_anomalous is expected, number % len(cases)
                run.saw("OK")
    assert set(run.outcomes) == {"OK", "INVALID_ARGUMENT"}


def _sources(dark: bytes, bright: bytes, bright_segment: str) -> list[tuple[tuple[bytes, ...], bool | None]]:
    """What to say of the image, and whether the answer is anomalous; None: it is refused."""
    size, inline = sides(WIDTH, HEIGHT), byte_data(dark)
    shared, missing = handle(4, bright_segment, SIZE), handle(4, "/no-such-segment", SIZE)
    new, legacy = handle(2, bright_segment, SIZE), handle(3, bright_segment, SIZE)
    return [
        ((), None),
        ((bitmap(),), None),
        ((bitmap(size),), None),
        ((bitmap(size, byte_data(b"")),), None),
        ((bitmap(size, handle(4, "", 0)),), None),
        ((bitmap(size, inline, shared),), False),
        ((bitmap(size, shared, inline),), True),
        ((bitmap(size, inline, missing),), None),
        ((bitmap(size, missing, inline),), True),
        ((bitmap(size, inline), bitmap(shared)), False),
        ((bitmap(inline), bitmap(size)), True),
        ((bitmap(size), bitmap(shared), bitmap(byte_data(bright)), bitmap(inline)), True),
        ((bitmap(size, inline), bitmap(sides(WIDTH, HEIGHT + 1))), None),
        ((bitmap(size, inline), mask_params(new, legacy)), None),
        ((bitmap(size, inline), mask_params(legacy), mask_params(new)), None),
        ((bitmap(size, inline), mask_params(handle(2, "", 0), handle(3, "", 0))), None),
    ]


# --- A10: any image, any output ---

OUTPUTS = (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, 0.5, 1.0, 0.0)
"""What the table model puts out; its last must be that of a good image."""


@row(
    "A10",
    "constant and noise images, models that put out NaN or infinity: finite numbers, or INTERNAL with a sentence",
    unit="images",
    full=100_000,
    short=150,
)
def numbers_of_answers(run: Run) -> None:
    package = make_package(run.folder / "table", model=table_model(OUTPUTS), any_size=True)
    with also_running(run.agent, "table", package):
        stub = run.agent.stub()
        for _ in run.steps(each=2):
            _any_image(run, lambda component, pixels: detect(stub, inline_request(component, pixels)))
            _any_output(run, lambda pixels: detect(stub, inline_request("table", pixels)))
    assert set(run.outcomes) == {"OK", "INTERNAL"}


def _any_image(run: Run, ask: Callable[[str, NDArray[np.uint8]], wire.DetectAnomalyResult]) -> None:
    component = run.random.choice((ANY_SIZE, CLASSIFIER))
    width, height = (WIDTH, HEIGHT) if component == CLASSIFIER else run.random.choices(range(64, 200), k=2)
    pixels = grey(run.random.choice((0, 1, 127, 128, 254, 255)), width, height)
    if run.random.random() < 0.5:
        pixels = np.frombuffer(run.random.randbytes(pixels.size), np.uint8).reshape(pixels.shape)
    _check_numbers(ask(component, pixels))
    run.saw("OK")


def _any_output(run: Run, ask: Callable[[NDArray[np.uint8]], wire.DetectAnomalyResult]) -> None:
    pixels = grey(0)
    for_score, for_map = run.random.choices(range(len(OUTPUTS)), k=2)
    pixels[0, 0, :2] = for_score, for_map
    try:
        result = ask(pixels)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INTERNAL
        assert re.search(r'output "(score|map)" .* not a finite number', error.details()), error.details()
        assert not (math.isfinite(OUTPUTS[for_score]) and math.isfinite(OUTPUTS[for_map])), error.details()
        run.saw(error.code().name)
    else:
        assert math.isfinite(OUTPUTS[for_score]) and math.isfinite(OUTPUTS[for_map])
        _check_numbers(result)
        run.saw("OK")


def _check_numbers(result: wire.DetectAnomalyResult) -> None:
    areas = [anomaly.pixel_anomaly.total_percentage_area for anomaly in result.anomalies]
    for value in (result.confidence, result.anomaly_score, result.anomaly_threshold, *areas):
        assert 0 <= value <= 1, result  # false for NaN too
    assert result.is_anomalous is (result.anomaly_score >= result.anomaly_threshold)
    assert not areas or math.isclose(sum(areas), 1, abs_tol=1e-6)


# --- A11: names ---

WRONG_NAMES = (
    "",
    ".",
    "..",
    "../any-size",
    "a/b",
    "/etc/passwd",
    "\0",
    "any-size\0",
    "any-size\n",
    "any-size ",
    "ANY-SIZE",
    "any-size.json",
    ".wanted-models",
    "\u0430ny-size",  # a Cyrillic a
    "any\u2010size",  # another hyphen
    "any-size\u200b",  # a space of no width
    f"x\n{FORGED}",
    f"x\r\n{FORGED}",
    f"x\u2028{FORGED}",
    f"x\x85{FORGED}",
    "\x1b[2J\x1b[31m",
    "%s%n%d{}{0}{component!r}",
    '"\\"',
    "\U0001f600" * 128,
    "n" * 128,
    "n" * 129,
    "n" * 2**20,
)


@row(
    "A11",
    "names that are none: INVALID_ARGUMENT or NOT_FOUND, and one line in the log that nobody forged",
    unit="calls",
    full=100_000,
    short=60,
)
def wrong_names(run: Run) -> None:
    calls = _calls_with_names(run.agent)
    log = LogReader(run.agent)
    for number in run.steps():
        name = WRONG_NAMES[number % len(WRONG_NAMES)]
        if run.random.random() < 0.3:
            # (Half of all 16-bit numbers would do too, but surrogates are no characters.)
            name += "".join(chr(run.random.randrange(0xD800)) for _ in range(run.random.randint(1, 100)))
        code, sentence = refusal(lambda name=name: run.random.choice(calls)(name))
        assert code in (INVALID, grpc.StatusCode.NOT_FOUND), sentence
        assert sentence.isascii() and sentence.isprintable() and len(sentence) < 2000, sentence
        run.saw(code.name)
        assert log.next_line().endswith(sentence), sentence
    assert set(run.outcomes) == {"INVALID_ARGUMENT", "NOT_FOUND"}


def _calls_with_names(agent: AgentProcess) -> list[Callable[[str], object]]:
    stub = agent.stub()
    image = inline_request(ANY_SIZE, grey(0)).bitmap
    return [
        lambda name: detect(stub, wire.DetectAnomaliesRequest(model_component=name, bitmap=image)),
        lambda name: stub.DescribeModel(wire.DescribeModelRequest(model_component=name), timeout=PATIENCE),
        lambda name: stub.StartModel(wire.StartModelRequest(model_component=name), timeout=PATIENCE),
        lambda name: stub.StopModel(wire.StopModelRequest(model_component=name), timeout=PATIENCE),
    ]
