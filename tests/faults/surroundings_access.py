"""Rows G1, G2 and G7: who may call, what the agent may do, what its workers get."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.row import Run, row
from tests.support.agent_process import (
    PATIENCE,
    AgentProcess,
    detect,
    inline_request,
    wait_for,
)
from tests.support.checkout import ROOT
from tests.support.packages import grey, make_package

MODEL = "model"
NOBODY = 65534
"""A user and a group without rights, on every Linux."""
SOCKET_MODE = 0o660
IS_ROOT = os.geteuid() == 0
NO_CAPABILITIES = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
REACHES_ITSELF = "import os, sys, agent.cli, numpy; assert os.access(sys.executable, os.X_OK)"
CONNECT = """
import os, socket, sys
path, user, group = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setgid(group)
os.setuid(user)
socket.socket(socket.AF_UNIX).connect(path)
"""


class Starts:
    """Starts and ends of a server on `socket`, in a process of its own."""

    def __init__(self, socket: Path, group: int) -> None:
        command = [sys.executable, "-m", "tests.faults.surroundings_starts", socket, f"{SOCKET_MODE:o}", str(group)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, bufsize=0)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._orders, self._signs = self._process.stdin, self._process.stdout
        os.set_blocking(self._signs.fileno(), False)

    def go_on(self) -> None:
        """To the next end, or the next start."""
        self._orders.write(b"\n")

    def have_come(self) -> bool:
        """Whether it has come to that since it was last asked."""
        assert self._process.poll() is None, "it has ended"
        return self._signs.read() == b"."

    def close(self) -> None:
        self._orders.close()
        self._signs.close()
        self._process.wait(PATIENCE)


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder with a short path that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="ea-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@row(
    "G1",
    "the socket's mode from its first instant: never wider than asked for; other users cannot connect",
    unit="starts",
    full=1000,
    short=10,
    uses_shared_agent=False,
)
def socket_mode(run: Run) -> None:
    group = NOBODY if IS_ROOT else os.getegid()
    looks, modes = 0, set()
    with folder_for_all() as folder:
        path = folder / "s"
        starts = Starts(path, group)
        try:
            for _ in run.steps():
                starts.go_on()
                while not starts.have_come():
                    modes |= modes_of_sockets(folder)
                    looks += 1
                assert stat.S_IMODE(path.stat().st_mode) == SOCKET_MODE
                assert path.stat().st_gid == group
                starts.go_on()
                wait_for("the server to leave", starts.have_come)
            assert {mode for _, mode in modes} <= {0o600, SOCKET_MODE}, modes
            assert {mode for name, mode in modes if name == path.name} <= {SOCKET_MODE}, modes
            run.figures["looks"] = str(looks)
            starts.go_on()
            wait_for("the last start", starts.have_come)
            run.figures["other users"] = other_users(path, group)
            starts.go_on()
            wait_for("the last end", starts.have_come)
        finally:
            starts.close()


def modes_of_sockets(folder: Path) -> set[tuple[str, int]]:
    """Name and mode of each socket, at this instant."""
    modes = set()
    for entry in os.scandir(folder):
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
        except FileNotFoundError:  # a private name on its way to the public one
            continue
        if stat.S_ISSOCK(mode):
            modes.add((entry.name, stat.S_IMODE(mode)))
    return modes


def other_users(path: Path, group: int) -> str:
    """Shows that one outside the group is refused and one inside it is not; only root can put on their clothes."""
    if not IS_ROOT:
        return "not tried: not root"
    assert "PermissionError" in connect_as(NOBODY, NOBODY - 1, path)
    assert connect_as(NOBODY, group, path) == ""
    return "refused outside the group"


def connect_as(user: int, group: int, path: Path) -> str:
    """What Python has to say when that user connects."""
    command = [sys.executable, "-c", CONNECT, str(path), str(user), str(group)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True).stderr


@row(
    "G2",
    "without rights, network and a disk to write on: serves; and never opens a network connection",
    unit="starts",
    full=20,
    short=1,
    uses_shared_agent=False,
)
def no_rights(run: Run) -> None:
    for _ in run.steps():
        left_out = [reason for way in (start_confined, start_traced) if (reason := way(run))]
        if len(left_out) == 2:
            pytest.skip("; ".join(left_out))
        run.figures["left out"] = "; ".join(left_out) or "nothing"


def start_confined(run: Run) -> str:
    """As nobody where this may be, without capabilities and network, the disk read-only but for the agent's folder.

    Returns why it cannot be tried here, empty where it was.
    """
    unshare = ["unshare", "--net", "--mount", *([] if IS_ROOT else ["--map-root-user"])]
    if not can_run([*unshare, "setpriv", *NO_CAPABILITIES, "true"]):
        return "unshare and setpriv are not allowed here"
    agent = AgentProcess()
    agent.registry.mkdir()
    package = make_package(agent.folder / "package", any_size=True)
    user, identity = os.geteuid(), []
    if IS_ROOT and can_run([*as_nobody(), sys.executable, "-c", REACHES_ITSELF]):
        user, identity = NOBODY, as_nobody()[1:]
        for path in (agent.folder, agent.registry):
            os.chown(path, NOBODY, NOBODY)
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec setpriv "$@"'
    agent.through = [*unshare, "sh", "-c", mount, str(agent.folder), *NO_CAPABILITIES, *identity]
    with agent:
        process = Path(f"/proc/{agent.running.pid}")
        held = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
        assert int(held["CapEff"], 16) == 0
        assert set(held["Uid"].split()) == {str(user)}
        assert re.findall(r"(\w+):", (process / "net/dev").read_text()) == ["lo"]
        assert os.statvfs(process / "root").f_flag & os.ST_RDONLY
        run_and_stop(run, agent, package)
    run.figures["user"] = "nobody" if identity else f"{user}, without capabilities"
    return ""


def start_traced(run: Run) -> str:
    """Below strace: no network but the socket, no program but Python. Returns why it cannot be tried here, if so."""
    trace = run.folder / "trace"
    strace = ["strace", "-D", "-f", "--seccomp-bpf", "-e", "trace=network,execve", "-o", str(trace)]
    if not can_run([*strace, "true"]):
        return "strace is not installed or not allowed here"
    agent = AgentProcess()
    agent.through = strace
    with agent:
        run_and_stop(run, agent, make_package(agent.folder / "package", any_size=True))
    calls = trace.read_text()
    assert set(re.findall(r'execve\("([^"]*)"', calls)) == {sys.executable}
    named = set(re.findall(r"(\w+)\([^\n]*\b((?:AF|PF)_\w+)", calls))
    assert ("bind", "AF_UNIX") in named
    # gRPC asks a socket of this family, closed again at once, what the kernel can do; nothing else is done with it.
    elsewhere = {(call, family) for call, family in named if family != "AF_UNIX"}
    assert elsewhere <= {("socket", "AF_INET"), ("socket", "AF_INET6")}, elsewhere
    assert len(re.findall(r"\blisten\(", calls)) == 1
    run.figures["binds, connects and messages beyond unix sockets"] = "0"
    return ""


def can_run(command: list[str]) -> bool:
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


def as_nobody() -> list[str]:
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def run_and_stop(run: Run, agent: AgentProcess, package: Path) -> None:
    agent.run_model(MODEL, package)
    assert detect(agent.stub(), inline_request(MODEL, grey(0))).is_anomalous
    run.saw("OK")
    assert agent.stop() == 0
