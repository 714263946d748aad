"""Exactly one agent per socket.

gRPC would bind a path in use and delete whatever lies there when it stops (both tried). So the path is claimed by a
lock beside it, the server binds a private name, and the public name is a second link to the same socket: put there
only once the server answers, looked after while it runs, taken away only if it is still ours.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import Refusal
from agent.settings import MAX_SOCKET_PATH

log = logging.getLogger(__name__)

WATCH_INTERVAL = 2.0
"""Seconds between two looks at the public name."""
BIND_UMASK = 0o177
"""A socket is the agent's own (0600) from its first instant; group and mode as asked come before the public name."""


class AnotherAgentServes(Refusal):
    """Somebody else holds the lock of this socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"Another agent serves {path}; stop it first, or choose another socket.")


class SocketPathNotUsable(Refusal):
    """The socket cannot be made there."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"The socket {path} cannot be made: {reason}.")


class SocketClaim:
    """The right to serve `path`, held from construction to `release`."""

    def __init__(self, path: Path) -> None:
        """Raises AnotherAgentServes or SocketPathNotUsable."""
        self.path = path
        # Short, so that it fits nearly wherever the public name does, and this path's own: whoever holds the lock may
        # use it. (Not the process id: containers that share a folder share those.)
        self.private = path.with_name("." + hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8])
        if len(os.fsencode(self.private)) > MAX_SOCKET_PATH:
            raise SocketPathNotUsable(path, "its folder's path is too long for a second name")
        self._lock = self._acquire()
        self._identity: tuple[int, int] | None = None
        self._stop = threading.Event()
        self._watch: threading.Thread | None = None
        try:
            self._refuse_what_is_no_socket()
            self.private.unlink(missing_ok=True)  # left behind by an agent that was killed
        except OSError as error:
            os.close(self._lock)
            raise SocketPathNotUsable(path, error.strerror or str(error)) from None

    @contextmanager
    def binding(self) -> Iterator[str]:
        """The address to bind, with a umask that lets nobody in before mode and group are set."""
        before = os.umask(BIND_UMASK)
        try:
            yield f"unix:{self.private}"
        finally:
            os.umask(before)

    def publish(self, mode: int, group: int | None) -> None:
        """Gives the bound socket its group and mode and puts it where clients look; watches it from then on.

        Raises:
            SocketPathNotUsable: the group cannot be set, or what lies there cannot be replaced.
        """
        try:
            if group is not None:
                os.chown(self.private, -1, group)
            self.private.chmod(mode)
            self._identity = _identity(self.private)
            self._link()
        except PermissionError as error:
            raise SocketPathNotUsable(
                self.path, f"{error.strerror} (who owns what lies there, and the folder?)"
            ) from None
        except OSError as error:
            raise SocketPathNotUsable(self.path, error.strerror or str(error)) from None
        self._watch = threading.Thread(target=self._look_after, name="socket-watch", daemon=True)
        self._watch.start()

    def withdraw(self) -> None:
        """Takes the public name away, if it is ours: no new client comes."""
        self._stop.set()
        if self._watch is not None:
            self._watch.join()
        if self._is_ours():
            self.path.unlink(missing_ok=True)

    def release(self) -> None:
        """Gives everything back; another agent may serve the path. The lock file stays: removing it would race."""
        self.withdraw()
        self.private.unlink(missing_ok=True)
        os.close(self._lock)

    def _acquire(self) -> int:
        lock = self.path.with_name(self.path.name + ".lock")
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            try:
                # Without O_CREAT: in sticky folders the kernel refuses it for files of other users.
                descriptor = os.open(lock, flags)
            except FileNotFoundError:
                try:
                    descriptor = os.open(lock, flags | os.O_CREAT | os.O_EXCL, 0o644)
                except FileExistsError:  # another agent was quicker
                    descriptor = os.open(lock, flags)
        except OSError as error:
            raise SocketPathNotUsable(self.path, f"{error.strerror} at its lock file {lock.name}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise AnotherAgentServes(self.path) from None
            raise SocketPathNotUsable(self.path, error.strerror or str(error)) from None
        return descriptor

    def _refuse_what_is_no_socket(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise FileExistsError(errno.EEXIST, "something lies there that is no socket, and is not deleted")

    def _link(self) -> None:
        """Replaces whatever socket has the public name by ours, in one step; OSError where it is no socket."""
        self._refuse_what_is_no_socket()
        if _identity(self.private) != self._identity:
            raise FileNotFoundError(errno.ENOENT, "its private name has gone too; restart the agent")
        step = self.private.with_name(self.private.name + "l")
        step.unlink(missing_ok=True)
        os.link(self.private, step)
        step.replace(self.path)

    def _is_ours(self) -> bool:
        return self._identity is not None and _identity(self.path) == self._identity

    def _look_after(self) -> None:
        while not self._stop.wait(WATCH_INTERVAL):
            if self._is_ours():
                continue
            try:
                self._link()
                log.warning("the socket %s had gone or been replaced; it is back", self.path)
            except OSError as error:
                log.error("the socket %s has gone and cannot be put back: %s", self.path, error.strerror)


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what lies at `path`; None where nothing does."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
