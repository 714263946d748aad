"""Row E5: models that are small as files and want all there is of memory or time, or names nobody has heard of."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agent.wire import edge_agent_pb2 as wire
from tests.faults.oracle import resident_bytes
from tests.faults.packages_graphs import write_model
from tests.faults.packages_support import put, suspect
from tests.faults.processes_support import agent_with, quick_package
from tests.faults.row import CLASSIFIER, Run, row
from tests.support.agent_process import AgentProcess
from tests.support.little_memory import little_memory
from tests.support.packages import first_pixel_model, greedy_model, slow_model

MIB = 1 << 20
AVAILABLE = 700 * MIB
"""What the agent believes to be left: a bomb shall not take what others on this machine need."""
MOST = AVAILABLE + 100 * MIB
"""A worker has some memory before it loads its model."""
TIME_LIMIT = 3.0
"""Seconds to load; good models take one of them on a busy machine."""
LOOK = 0.005
"""Seconds between two looks at what workers hold."""

NO_MEMORY = "it needs more memory than is free on this device"
LOADING = "could not load the model"
NO_MODEL = "it is no ONNX model"
ENDLESS = "was not ready within 3 s"


def _adding(nodes: list[onnx.NodeProto], *constants: onnx.TensorProto) -> bytes:
    """The first-pixel model, plus what more nodes make as `more`."""
    model = first_pixel_model()
    model.graph.node[-1].output[0] = "one"
    model.graph.node.extend([*nodes, helper.make_node("Add", ["one", "more"], ["score"])])
    model.graph.initializer.extend(constants)
    return model.SerializeToString()


def _filling(shape: list[int]) -> bytes:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["more"], keepdims=0),
    ]
    return _adding(nodes, numpy_helper.from_array(np.array(shape, np.int64), "shape"))


def _doubling() -> bytes:
    """Each time round it holds twice as much: no single demand is absurd."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Concat", ["before", "before"], ["after"], axis=0),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            value("step", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, ["n"]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, ["m"])],
    )
    nodes = [
        helper.make_node("Loop", ["times", "yes", "one"], ["much"], body=body),
        helper.make_node("ReduceMax", ["much"], ["more"], keepdims=0),
    ]
    times, yes = np.array(60, np.int64), np.array(True)
    return _adding(nodes, numpy_helper.from_array(times, "times"), numpy_helper.from_array(yes, "yes"))


def _claiming(dims: list[int]) -> bytes:
    """Weights of four bytes that say they are many."""
    return _adding([], TensorProto(name="more", data_type=TensorProto.FLOAT, dims=dims, raw_data=bytes(4)))


def _long_chain(nodes: int) -> bytes:
    names = ["one", *(f"n{number}" for number in range(1, nodes)), "more"]
    return _adding([helper.make_node("Identity", [before], [after]) for before, after in itertools.pairwise(names)])


def _nested(depth: int) -> bytes:
    """Graphs inside graphs, below anything a protobuf library writes: GraphProto.node.attribute.g, by their numbers."""
    content = b""
    for _ in range(depth):
        for field in (6, 5, 1):
            content = bytes([field << 3 | 2]) + _varint(len(content)) + content
    return first_pixel_model().SerializeToString() + b"\x3a" + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    more = b""
    while number > 0x7F:
        more += bytes([number & 0x7F | 0x80])
        number >>= 7
    return more + bytes([number])


def _endless() -> bytes:
    model = slow_model()
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    loop.input[0] = "for_ever"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1 << 60, np.int64), "for_ever"))
    return model.SerializeToString()


def _unknown(kind: str, domain: str = "") -> bytes:
    return _adding([helper.make_node(kind, ["one"], ["more"], domain=domain)])


@dataclass(frozen=True)
class Bomb:
    name: str
    make: Callable[[], bytes]
    refusals: tuple[str, ...]
    """One of these it must be; none: it serves. Where "" is among them, either."""


BOMBS = (
    Bomb("as much as there is", lambda: greedy_model(AVAILABLE).SerializeToString(), (NO_MEMORY,)),
    Bomb("a quarter of it", lambda: greedy_model(AVAILABLE // 4).SerializeToString(), ("",)),
    Bomb("doubling", _doubling, (NO_MEMORY, LOADING)),
    Bomb("8 EiB", lambda: _filling([1 << 61]), (NO_MEMORY,)),
    Bomb("endless", _endless, (ENDLESS,)),
    Bomb("graphs in graphs", lambda: _nested(5000), (NO_MODEL,)),
    Bomb("more than can be counted", lambda: _filling([1 << 33, 1 << 33]), (LOADING,)),
    Bomb("weights that claim 8 EiB", lambda: _claiming([1 << 61]), (LOADING,)),
    Bomb("weights that cannot be counted", lambda: _claiming([1 << 62, 4]), (LOADING,)),
    Bomb("weights of less than nothing", lambda: _claiming([-1]), (LOADING,)),
    Bomb("30,000 nodes", lambda: _long_chain(30_000), ("",)),
    Bomb("1,000,000 nodes", lambda: _long_chain(1_000_000), ("", NO_MEMORY, LOADING, ENDLESS, "its worker ended")),
    Bomb("operator of nobody", lambda: _unknown("Evil", "nobody.example"), (LOADING,)),
    Bomb("operator of a library", lambda: _unknown("PyOp", "ai.onnx.contrib"), (LOADING,)),
    Bomb("endless name", lambda: _unknown("x" * MIB), (LOADING,)),
)


@row(
    "E5",
    "models that want all memory, all time, or what nobody has: FAILED within both limits, others served",
    unit="bombs",
    full=1000,
    short=4,
    uses_shared_agent=False,
)
def bombs(run: Run) -> None:
    limits = ("--load-time-limit", f"{TIME_LIMIT:g}")
    packages = {CLASSIFIER: quick_package(run, CLASSIFIER)}
    with (
        agent_with(packages, *limits, environment=little_memory(AVAILABLE)) as agent,
        suspect(run, agent) as model,
        _most_memory(agent) as most,
    ):
        for number in run.steps():
            index = number % len(BOMBS)
            bomb, kept = BOMBS[index], run.folder / f"{index}.onnx"
            if not kept.exists():
                kept.write_bytes(bomb.make())
            put(run.folder / "good", model.folder)
            write_model(model.folder, kept.read_bytes())
            came_to, said = model.start()
            reason = "" if came_to == wire.RUNNING else said
            assert any(expected in reason if expected else not reason for expected in bomb.refusals), (bomb.name, said)
    run.figures["most memory of a worker"] = f"{max(most) / MIB:.0f} MiB"
    assert max(most) < MOST


@contextlib.contextmanager
def _most_memory(agent: AgentProcess) -> Iterator[list[int]]:
    """Bytes that each worker was seen to hold, at most; looked at all the time."""
    most, over = dict[int, int](), threading.Event()
    seen = list[int]()

    def look() -> None:
        while not over.wait(LOOK):
            for pid in agent.worker_pids():
                with contextlib.suppress(OSError):  # it has ended
                    most[pid] = max(most.get(pid, 0), resident_bytes(pid))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()
        seen.extend(most.values())
