"""Generates everything that is derived from edge-agent.proto, below the folder given.

    python protos/generate.py [ROOT]

Needs the `wire` dependency group; `make wire` runs it in an environment of its own. The virtual import path
(`agent/wire=protos`) keeps the proto where people look for it and still yields `from agent.wire import edge_agent_pb2`.
"""

import os
import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PLAIN_STUBS = [f"client_examples/{name}" for name in ("detect", "camera", "live_view", "gstreamer")]
"""Folders of sample clients: each carries its own copy of the plain stubs, so that it can be copied as it stands."""
PLAIN_PROTO = ["client_examples/cpp"]
"""Folders of sample clients whose build makes the stubs."""


os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
"""protoc finds its mypy plug-ins on the path, and they are installed beside this Python."""


def run_protoc(*arguments: str) -> None:
    if protoc.main(["protoc", *arguments]) != 0:
        sys.exit("protoc failed, see above")


def generate(root: Path) -> None:
    (root / "agent/wire").mkdir(parents=True, exist_ok=True)
    docstring = '"""Generated from protos/edge-agent.proto by `make wire`; nobody edits it."""'
    (root / "agent/wire/__init__.py").write_text(f"{docstring}\n")
    run_protoc(
        f"-Iagent/wire={HERE}",
        f"--python_out={root}",
        f"--grpc_python_out={root}",
        f"--mypy_out=quiet:{root}",
        f"--mypy_grpc_out=quiet,only_sync:{root}",
        "agent/wire/edge-agent.proto",
    )
    for folder in PLAIN_STUBS:
        (root / folder).mkdir(parents=True, exist_ok=True)
        target = root / folder
        run_protoc(f"-I{HERE}", f"--python_out={target}", f"--grpc_python_out={target}", "edge-agent.proto")
    for folder in PLAIN_PROTO:
        (root / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / "edge-agent.proto", root / folder / "edge-agent.proto")


if __name__ == "__main__":
    generate(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
