"""Exactly one agent per socket: names, modes, the lock."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.rpc.socket_claim import AnotherAgentServes, SocketClaim, SocketPathNotUsable
from tests.support.agent_process import wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Unix socket paths end at 107 bytes, so not pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="ea-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "s"


def bind(claim: SocketClaim) -> socket.socket:
    """What the server does with the claim."""
    server = socket.socket(socket.AF_UNIX)
    with claim.binding() as address:
        server.bind(address.removeprefix("unix:"))
    server.listen()
    return server


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_clients_find_the_socket_only_once_it_is_published_and_the_private_name_stays_beside_it(path: Path) -> None:
    claim = SocketClaim(path)
    with bind(claim):
        assert not path.exists()
        assert claim.private.parent == path.parent and claim.private.exists()
        claim.publish(0o660, None)
        assert path.samefile(claim.private)
        assert connects(path)
        claim.withdraw()
        assert not path.exists() and claim.private.exists()
        claim.release()
    assert names(path.parent) == {"s.lock"}


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_socket_is_never_wider_than_asked_from_its_first_instant(path: Path, mode: int) -> None:
    """Row G1 in short: a watcher looks at both names all the while."""
    seen: set[int] = set()
    stop, looked = threading.Event(), threading.Event()

    def look() -> None:
        while not stop.is_set():
            for name in (path, path.with_name(f".{os.getpid():x}"), path.with_name(f".{os.getpid():x}l")):
                try:
                    seen.add(mode_of(name))
                except FileNotFoundError:
                    continue
            looked.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    umask = os.umask(0)
    try:
        assert looked.wait(20)
        for _ in range(20):
            claim = SocketClaim(path)
            with bind(claim):
                assert mode_of(claim.private) == 0o600
                claim.publish(mode, os.getgid())
                assert mode_of(path) == mode
                looked.clear()
                assert looked.wait(20)
                claim.release()
    finally:
        os.umask(umask)
        stop.set()
        watcher.join()
    assert mode in seen
    assert not [f"{wider:o}" for wider in seen if wider & ~mode]


def test_the_umask_is_as_before_after_binding(path: Path) -> None:
    before = os.umask(0o022)
    try:
        claim = SocketClaim(path)
        with pytest.raises(RuntimeError), claim.binding():
            raise RuntimeError
        claim.release()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_the_group_is_the_one_asked_for(path: Path) -> None:
    group = next((group for group in (*os.getgroups(), 1) if group != os.getgid()), os.getgid())
    if os.geteuid() != 0 and group not in os.getgroups():
        pytest.skip("this user is in one group only")
    claim = SocketClaim(path)
    with bind(claim):
        claim.publish(0o660, group)
        assert path.lstat().st_gid == group
        claim.release()


# --- the lock ---


def test_a_second_claim_is_refused_while_the_first_is_held_and_allowed_after(path: Path) -> None:
    first = SocketClaim(path)
    with pytest.raises(AnotherAgentServes, match=f"Another agent serves {path}"):
        SocketClaim(path)
    first.release()
    SocketClaim(path).release()


def test_the_lock_of_a_killed_process_is_free(path: Path) -> None:
    script = (
        "import sys, threading; from pathlib import Path; from agent.rpc.socket_claim import SocketClaim\n"
        "claim = SocketClaim(Path(sys.argv[1])); print('held', flush=True); threading.Event().wait()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(AnotherAgentServes):
            SocketClaim(path)
        holder.kill()
    SocketClaim(path).release()


def test_a_child_process_does_not_inherit_the_lock(path: Path) -> None:
    claim = SocketClaim(path)
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as child:
        assert child.stdout is not None and child.stdout.readline() == b"\n"
        claim.release()
        SocketClaim(path).release()
        child.communicate(b"\n")


def test_an_existing_lock_file_is_opened_without_creating_or_changing_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In sticky folders the kernel refuses O_CREAT for a file of another user (fs.protected_regular)."""
    lock = path.with_name("s.lock")
    lock.write_text("made by somebody else")
    lock.chmod(0o644)
    flags: list[int] = []
    opening = os.open

    def watched(name: os.PathLike[str], flag: int, *mode: int) -> int:
        flags.append(flag)
        return opening(name, flag, *mode)

    monkeypatch.setattr(os, "open", watched)
    claim = SocketClaim(path)
    monkeypatch.undo()
    assert flags and not any(flag & (os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_RDWR) for flag in flags)
    claim.release()
    assert lock.read_text() == "made by somebody else" and mode_of(lock) == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")
def test_a_lock_file_of_another_user_in_a_sticky_folder_can_be_used(folder: Path) -> None:
    folder.chmod(0o1777)
    lock = folder / "s.lock"
    lock.touch(0o644)
    os.chown(lock, 12345, 12345)
    SocketClaim(folder / "s").release()


def test_the_lock_is_held_on_the_file_beside_the_socket(path: Path) -> None:
    claim = SocketClaim(path)
    with path.with_name("s.lock").open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        claim.release()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("leads_to", ["existing", "nowhere"])
def test_a_lock_file_that_is_a_link_is_refused_and_not_followed(folder: Path, path: Path, leads_to: str) -> None:
    if leads_to == "existing":
        (folder / "existing").write_text("precious")
    (folder / "s.lock").symlink_to(folder / leads_to)
    with pytest.raises(SocketPathNotUsable, match=r"at its lock file s\.lock"):
        SocketClaim(path)
    assert not (folder / "nowhere").exists()


def test_a_lock_file_that_is_a_fifo_does_not_make_the_agent_wait(path: Path) -> None:
    os.mkfifo(path.with_name("s.lock"))
    SocketClaim(path).release()


# --- paths that cannot be used ---


def test_a_folder_whose_path_is_too_long_is_refused(folder: Path) -> None:
    deep = folder / ("x" * (107 - len(str(folder))))
    deep.mkdir()
    with pytest.raises(SocketPathNotUsable, match="too long"):
        SocketClaim(deep / "s")
    assert list(deep.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(SocketPathNotUsable, match="No such file or directory"):
        SocketClaim(folder / "none" / "s")


@pytest.mark.parametrize("kind", ["file", "folder", "fifo", "link"])
def test_what_is_no_socket_is_refused_not_deleted_and_its_lock_is_given_back(path: Path, kind: str) -> None:
    make = {"file": path.touch, "folder": path.mkdir, "fifo": lambda: os.mkfifo(path)}
    make.get(kind, lambda: path.symlink_to(path.parent / "elsewhere"))()
    before = path.lstat()
    for _ in range(2):  # the second finds the lock free
        with pytest.raises(SocketPathNotUsable, match="no socket"):
            SocketClaim(path)
    assert path.lstat().st_ino == before.st_ino


def test_what_came_there_since_the_claim_and_is_no_socket_is_not_deleted(path: Path) -> None:
    claim = SocketClaim(path)
    with bind(claim):
        path.write_text("precious")
        with pytest.raises(SocketPathNotUsable, match="no socket"):
            claim.publish(0o660, None)
        claim.release()
    assert path.read_text() == "precious"
    assert names(path.parent) == {"s", "s.lock"}


def test_a_private_name_that_cannot_be_cleared_gives_the_lock_back(path: Path) -> None:
    with_claim = SocketClaim(path)
    private = with_claim.private
    with_claim.release()
    private.mkdir()
    with pytest.raises(SocketPathNotUsable):
        SocketClaim(path)
    private.rmdir()
    SocketClaim(path).release()


# --- what is ours ---


def test_a_stale_socket_is_replaced_in_one_step(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    claim = SocketClaim(path)
    assert path.exists()  # until the new one answers
    with bind(claim):
        claim.publish(0o660, None)
        assert connects(path)
        claim.release()


def test_what_a_process_with_our_id_left_behind_is_cleared(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path.with_name(f".{os.getpid():x}")))
    claim = SocketClaim(path)
    with bind(claim):
        claim.publish(0o660, None)
        assert connects(path)
        claim.release()


def test_withdrawing_removes_only_what_is_ours(path: Path) -> None:
    claim = SocketClaim(path)
    with bind(claim), socket.socket(socket.AF_UNIX) as other:
        claim.publish(0o660, None)
        path.unlink()
        other.bind(str(path))
        claim.withdraw()
        assert path.exists()
        claim.release()
        assert path.exists()


def test_withdrawing_before_publishing_removes_nothing(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
    claim = SocketClaim(path)
    claim.release()
    assert path.exists()


@pytest.mark.parametrize("how", ["deleted", "replaced by a socket"])
def test_the_public_name_is_put_back(path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row D9 in short."""
    monkeypatch.setattr("agent.rpc.socket_claim.WATCH_INTERVAL", 0.01)
    claim = SocketClaim(path)
    with bind(claim), socket.socket(socket.AF_UNIX) as other:
        claim.publish(0o600, None)
        path.unlink()
        if how == "replaced by a socket":
            other.bind(str(path))
        wait_for("it to be back", lambda: path.exists() and path.samefile(claim.private))
        assert connects(path) and mode_of(path) == 0o600
        claim.release()
    assert names(path.parent) == {"s.lock"}


def test_a_file_that_took_the_public_name_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agent.rpc.socket_claim.WATCH_INTERVAL", 0.01)
    claim = SocketClaim(path)
    with bind(claim):
        claim.publish(0o660, None)
        step = path.with_name("precious")
        step.write_text("precious")
        step.replace(path)
        wait_for("a line in the log", lambda: "cannot be put back" in caplog.text)
        claim.release()
    assert path.read_text() == "precious"


def test_two_sockets_of_a_folder_have_private_names_of_their_own_whatever_the_process_ids(path: Path) -> None:
    """Containers that share a folder may share process ids."""
    one, other = SocketClaim(path), SocketClaim(path.with_name("t"))
    assert one.private != other.private
    with bind(one):
        other.release()
        assert one.private.exists()
        one.release()


def test_somebody_elses_socket_is_never_given_our_public_name(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agent.rpc.socket_claim.WATCH_INTERVAL", 0.01)
    claim = SocketClaim(path)
    with bind(claim), socket.socket(socket.AF_UNIX) as other:
        claim.publish(0o660, None)
        claim.private.rename(path.with_name("elsewhere"))  # keeps the inode, so that no other gets its number
        other.bind(str(claim.private))
        path.unlink()
        wait_for("the complaint", lambda: "its private name has gone too" in caplog.text)
        assert not path.exists()
        claim.release()
