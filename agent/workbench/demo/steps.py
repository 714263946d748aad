"""The demo's steps: commands of the product and the sample client, shown and run as a user would."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import agent
from agent.workbench.client_examples import client_example
from agent.workbench.errors import DemoStepFailed

START_LIMIT = 20.0
"""Seconds for the agent's socket to appear."""


def edge_agent(*arguments: str) -> None:
    """`edge-agent ARGUMENTS`. Raises DemoStepFailed where it ends with an error."""
    _run("edge-agent", [sys.executable, "-m", "agent"], arguments, _environment())


def sample_client(*arguments: str) -> None:
    """The sample client. Raises DemoStepFailed where it ends with an error."""
    script = str(client_example("detect") / "detect.py")
    _run(f"python {shlex.quote(script)}", [sys.executable, script], arguments)


@contextmanager
def serving(registry: str, log: Path) -> Iterator[str]:
    """An agent on a socket of its own while the block lasts; gives its address.

    Raises:
        DemoStepFailed: it does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        socket = Path(folder) / "demo.sock"
        arguments = ["serve", "--socket", f"unix://{socket}", "--registry", registry]
        _show("edge-agent", [*arguments, "&"])
        with log.open("wb") as written:
            command = [sys.executable, "-m", "agent", *arguments]
            process = subprocess.Popen(
                command, stdout=written, stderr=written, stdin=subprocess.DEVNULL, env=_environment()
            )
        try:
            deadline = time.monotonic() + START_LIMIT
            while not socket.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise DemoStepFailed(f"edge-agent serve (its log is {log})")
                time.sleep(0.02)
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait()


def _run(
    shown_as: str, command: list[str], arguments: tuple[str, ...], environment: dict[str, str] | None = None
) -> None:
    _show(shown_as, arguments)
    if subprocess.run([*command, *arguments], check=False, env=environment).returncode != 0:
        raise DemoStepFailed(f"{shown_as} {shlex.join(arguments)}")


def _environment() -> dict[str, str]:
    """Steps run the code that runs here, whatever lies in the current folder (from Python 3.11 on)."""
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(Path(agent.__file__).resolve().parent.parent)}


def _show(shown_as: str, arguments: tuple[str, ...] | list[str]) -> None:
    print(f"\n$ {shown_as} {' '.join(word if word == '&' else shlex.quote(word) for word in arguments)}", flush=True)
