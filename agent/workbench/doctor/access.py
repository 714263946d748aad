"""Whether this user may do what the agent does: serve at its socket, and read and write its registry."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import socket
import stat
from pathlib import Path

from agent.backends.engine_cache import ENGINE, FOLDER, size_of
from agent.settings import Settings
from agent.workbench.doctor.finding import Finding


def access_findings(settings: Settings) -> list[Finding]:
    socket_path, registry, engines = (
        Path(settings.socket.removeprefix("unix://")),
        settings.registry,
        settings.engine_cache,
    )
    return [
        _user(),
        *(_closed("socket", socket_path) or [_socket(socket_path)]),
        *(_closed("registry", registry) or [_registry(registry)]),
        *(_closed("engine cache", engines) or _engine_cache(engines)),
    ]


def _closed(topic: str, path: Path) -> list[Finding]:
    """Whether this user cannot even look for `path`; else nothing."""
    try:
        path.stat()
    except PermissionError:
        what = f"{path} lies in a folder that is closed to this user"
        return [Finding(topic, what, "problem", "run as the agent's user, or name a folder that is open to this one")]
    except OSError:
        pass
    return []


def _user() -> Finding:
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's
        name = str(os.geteuid())
    return Finding("user", f"{name}, groups {', '.join(sorted(map(_group, {os.getegid(), *os.getgroups()})))}")


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _socket(path: Path) -> Finding:
    if not path.exists():
        return _place("socket", path, path.parent, f"{path} is free")
    if not stat.S_ISSOCK(path.stat().st_mode):
        todo = "move it away, or name another socket"
        return Finding("socket", f"{path} is there and no socket", "problem", todo)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except PermissionError:
            todo = "use a user of the socket's group (setting socket_group)"
            return Finding("socket", f"this user may not call {path}", "note", todo)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                return _place("socket", path, path.parent, f"{path} was left behind; an agent that starts replaces it")
            return Finding("socket", f"{path} does not answer: {error.strerror}", "note", "restart the agent")
    return Finding("socket", f"an agent serves {path}")


def _registry(path: Path) -> Finding:
    if path.is_dir():
        records = len(list(path.glob("*.json"))) if os.access(path, os.R_OK) else 0
        return _place("registry", path, path, f"{path}, registered models: {records}")
    if path.exists():
        todo = "name another one, or remove what lies there"
        return Finding("registry", f"{path} is no directory", "problem", todo)
    above = next(parent for parent in path.parents if parent.exists())
    return _place("registry", path, above, f"{path} is not there yet; it is made with the first model")


def _engine_cache(path: Path) -> list[Finding]:
    """Nothing where there is none: only TensorRT makes one."""
    if not path.exists():
        return []
    if not path.is_dir() or path.stat().st_uid != os.geteuid():
        todo = (
            "name another one (setting engine_cache), or run as its owner; until then engines are built at each start"
        )
        return [Finding("engine cache", f"{path} is no directory of this user", "note", todo)]
    engines = [size_of(file) for file in path.iterdir() if file.suffix in (ENGINE, FOLDER)]
    free = shutil.disk_usage(path).free
    return [
        _place(
            "engine cache",
            path,
            path,
            f"{path}; engines: {len(engines)}, {sum(engines) >> 20} MiB; {free >> 20} MiB free",
        )
    ]


def _place(topic: str, path: Path, folder: Path, what: str) -> Finding:
    """`what`, where this user may write into `folder`."""
    if not folder.is_dir():
        return Finding(topic, f"{path} cannot be: {folder} is no directory", "problem", f"make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        todo = f"run as the agent's user, or let this one write into {folder}"
        return Finding(topic, f"{path} cannot be written by this user", "problem", todo)
    return Finding(topic, what)
