"""What is derived and committed is fresh, copies are the same; the proto alone yields stubs that work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.agent_process import AgentProcess
from tests.support.checkout import ROOT
from tests.support.packages import make_package

GENERATED = (
    "agent/wire",
    "client_examples/detect",
    "client_examples/camera",
    "client_examples/live_view",
    "client_examples/cpp",
    "client_examples/gstreamer",
)

GUIDE_CLIENT = """
import sys
import time

import grpc
from PIL import Image

import edge_agent_pb2 as pb2
from edge_agent_pb2_grpc import EdgeAgentStub

address, component, picture = sys.argv[1:]
with grpc.insecure_channel(address) as channel:
    stub = EdgeAgentStub(channel)
    try:
        for _ in range(100):
            status = stub.DescribeModel(pb2.DescribeModelRequest(model_component=component)).model_description.status
            print("status", pb2.ModelStatus.Name(status))
            if status == pb2.STOPPED:
                stub.StartModel(pb2.StartModelRequest(model_component=component))
                continue
            if status == pb2.STARTING:
                time.sleep(0.1)
                continue
            break
        assert status == pb2.RUNNING
        image = Image.open(picture).convert("RGB")
        bitmap = pb2.Bitmap(width=image.width, height=image.height, byte_data=image.tobytes())
        request = pb2.DetectAnomaliesRequest(model_component=component, bitmap=bitmap)
        result = stub.DetectAnomalies(request).detect_anomaly_result
        print("anomalous", result.is_anomalous, len(result.anomaly_mask.byte_data))
        print(stub.StopModel(pb2.StopModelRequest(model_component=component)))
    except grpc.RpcError as error:
        print("failed", error.code(), error.details())
"""

COPIES = {
    "edge_agent_client.py": ("detect", "camera", "live_view", "gstreamer"),
    "overlay.py": ("detect", "camera"),
    "complaint.py": ("camera/camera_client", "live_view/dashboard"),
    "component.py": ("camera/camera_client", "live_view/dashboard"),
    "greengrass_ipc.py": ("camera/camera_client", "live_view/dashboard"),
}
"""Files of client examples that are the same on purpose, for each example stands alone; below client_examples/."""


def test_the_committed_stubs_are_what_the_proto_yields(wire_python: str, tmp_path: Path) -> None:
    subprocess.run([wire_python, str(ROOT / "protos/generate.py"), str(tmp_path)], check=True)
    for folder in GENERATED:
        for made in (tmp_path / folder).iterdir():
            committed = ROOT / folder / made.name
            assert committed.read_text() == made.read_text(), f"{committed} is not fresh; run `make wire`"


@pytest.mark.parametrize("name", COPIES)
def test_a_file_of_several_client_examples_is_the_same_in_each(name: str) -> None:
    first, *others = (ROOT / "client_examples" / folder / name for folder in COPIES[name])
    for other in others:
        assert other.read_text() == first.read_text(), f"copy {first} to {other.parent}, or the other way round"


def test_what_the_code_yields_is_what_is_committed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for page in ("README.md", "docs/greengrass.md", "docs/metrics.md"):
        shutil.copy(ROOT / page, tmp_path / page)
    subprocess.run([sys.executable, str(ROOT / "docs/generate.py"), str(tmp_path)], check=True)
    made = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert {"README.md", "docs/model-package.schema.json", "recipes/agent/recipe.json"} <= set(map(str, made))
    for name in made:
        assert (ROOT / name).read_text() == (tmp_path / name).read_text(), f"{name} is not fresh; run `make wire`"
    assert "| `--queue-length` |" in (ROOT / "README.md").read_text()
    assert "| `QueueLength` |" in (ROOT / "docs/greengrass.md").read_text()
    assert "| `edge_agent_images_total` |" in (ROOT / "docs/metrics.md").read_text()


def test_the_proto_alone_and_the_old_guides_command_make_a_client_that_works(wire_python: str, tmp_path: Path) -> None:
    """In a process of its own: two generated copies of a proto cannot share one."""
    client = tmp_path / "client"
    client.mkdir()
    shutil.copy(ROOT / "protos/edge-agent.proto", client)
    command = [wire_python, "-m", "grpc_tools.protoc", "--proto_path=.", "--python_out=.", "--grpc_python_out=."]
    subprocess.run([*command, "edge-agent.proto"], check=True, cwd=client)
    (client / "guide.py").write_text(GUIDE_CLIENT)
    make_picture(client / "black.png")
    with AgentProcess() as agent:
        agent.run_model("model", make_package(tmp_path / "package"))
        from agent.wire import edge_agent_pb2 as wire

        agent.stub().StopModel(wire.StopModelRequest(model_component="model"))
        ran = subprocess.run(
            [sys.executable, "guide.py", f"unix:{agent.socket}", "model", "black.png"],
            cwd=client,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    lines = ran.stdout.split("\n")
    assert lines[0] == "status STOPPED"
    assert "status RUNNING" in lines
    assert "anomalous True 18432" in lines
    assert "failed" not in ran.stdout


def make_picture(path: Path) -> None:
    from PIL import Image

    from tests.support.packages import HEIGHT, WIDTH

    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
