"""Row E13: TensorRT engines that are none, or are for another device, in the cache and in a package."""

from __future__ import annotations

import hashlib
from pathlib import Path

from agent.backends.engine_cache import EngineCache
from agent.packages.manifest import Manifest, PackageFile, TensorRtEngine
from agent.wire import edge_agent_pb2 as wire
from tests.faults.processes_support import VICTIM, numbered, quick_package, tells
from tests.faults.row import Run, row
from tests.support.agent_process import AgentProcess, describe, detect, names, status, wait_for
from tests.support.fake_cuda import compile_fake_cuda
from tests.support.fake_tensorrt import fake_engine
from tests.support.packages import HEIGHT, WIDTH, changed, first_pixel_model, make_package
from tests.support.pretended_tensorrt import pretended_tensorrt

NUMBER = 51
RIGHT = {"version": "10.3.0", "gpu": "8.7", "fp16": False, "shapes": {"image": [1, HEIGHT, WIDTH, 3]}}
"""What the pretended device's own engines say of themselves."""
ENGINE = fake_engine(RIGHT, first_pixel_model())
DAMAGED = {
    "zero length": b"",
    "zeros": bytes(4096),
    "random": hashlib.shake_128(b"seed").digest(4096),
    "truncated": ENGINE[:-5],
    "wrong version": fake_engine({**RIGHT, "version": "9.3.0"}, first_pixel_model()),
    "wrong GPU": fake_engine({**RIGHT, "gpu": "8.6"}, first_pixel_model()),
}
THIS_DEVICE = TensorRtEngine("8.7", "10.3.0", "fp32")
OTHER_DEVICES = {
    "built by another version": TensorRtEngine("8.7", "8.6.1", "fp32"),
    "built for another GPU": TensorRtEngine("7.2", "10.3.0", "fp32"),
}


@row(
    "E13",
    "damaged engines, and those of other devices: built again, in a package FAILED with the reason; never an answer",
    unit="engines",
    full=200,
    short=3,
    uses_shared_agent=False,
)
def damaged_engines(run: Run) -> None:
    cuda = compile_fake_cuda(run.folder)
    cache = run.folder / "engines"
    flags = ("--device", "tensorrt", "--engine-cache", str(cache))
    with AgentProcess(*flags, environment=pretended_tensorrt(cuda)) as agent:
        agent.run_model(VICTIM, quick_package(run, VICTIM))
        for number in run.steps():
            if number % 2 == 0:
                in_the_cache(run, agent, cache)
            else:
                in_a_package(run, agent, number)
        # A negative control: the whole engine is taken.
        agent.run_model("whole", package_of(run.folder / "whole", ENGINE, THIS_DEVICE))
        assert tells(detect(agent.stub(), numbered("whole", NUMBER)), NUMBER)


def in_the_cache(run: Run, agent: AgentProcess, cache: Path) -> None:
    """The file is damaged, or TensorRT refuses what it holds; the model starts all the same."""
    damage = run.random.choice(list(DAMAGED))
    (file, head) = next((kept.file, kept.head) for kept in EngineCache(cache, 1 << 30).engines() if kept.head)
    if head.key is not None and run.random.random() < 0.5:
        EngineCache(cache, 1 << 30).store(head.key, memoryview(DAMAGED[damage]), VICTIM, 0.0)
        run.saw("put aside by TensorRT")
    else:
        (cache / file).write_bytes(DAMAGED[damage])
        run.saw("put aside unread")
    agent.stub().StopModel(wire.StopModelRequest(model_component=VICTIM))
    agent.stub().StartModel(wire.StartModelRequest(model_component=VICTIM))
    wait_for("it to run", lambda: status(agent.stub(), VICTIM) == wire.RUNNING)
    assert tells(detect(agent.stub(), numbered(VICTIM, NUMBER)), NUMBER), damage


def in_a_package(run: Run, agent: AgentProcess, number: int) -> None:
    """The package holds nothing else; it says why it cannot be started, and the other model answers."""
    what = run.random.choice([*DAMAGED, *OTHER_DEVICES])
    package = package_of(
        run.folder / f"engine-{number}", DAMAGED.get(what, ENGINE), OTHER_DEVICES.get(what, THIS_DEVICE)
    )
    component = f"engine-{number}"
    agent.register(component, package)
    wait_for("the registry to be read", lambda: component in names(agent.stub()))
    agent.stub().StartModel(wire.StartModelRequest(model_component=component))
    wait_for("it to fail", lambda: status(agent.stub(), component) == wire.FAILED)
    said = describe(agent.stub(), component).status_message
    assert "package the ONNX model" in said, said
    agent.remove(component)
    assert tells(detect(agent.stub(), numbered(VICTIM, NUMBER)), NUMBER)
    run.saw("FAILED: for another device" if what in OTHER_DEVICES else "FAILED: not taken")


def package_of(folder: Path, engine: bytes, built_for: TensorRtEngine) -> Path:
    """A package of an engine alone."""

    def with_engine(manifest: Manifest) -> Manifest:
        (folder / "model.engine").write_bytes(engine)
        listed = PackageFile("model.engine", len(engine), hashlib.sha256(engine).hexdigest(), built_for)
        return changed(manifest, files=[*(file for file in manifest.files if file.runtime is None), listed])

    return make_package(folder, task="classification", change=with_engine)
