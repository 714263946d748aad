"""What a device installs: pinned, with hashes, and as files for devices without internet."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.workbench.errors import SettingOutOfRange, WheelsNotFound

OLDEST_PYTHON = "3.10"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MACHINES = ("aarch64", "x86_64")
NEWEST_GLIBC = 34
"""Wheels for glibc up to 2.34 are taken, which JetPack 6, Debian 12 and Amazon Linux 2023 have."""
DISTRIBUTION = "vision-edge-agent"


@dataclass(frozen=True)
class DevicePlatform:
    """What decides which wheels fit a device."""

    machine: str
    """As `uname -m` says: aarch64 or x86_64."""
    python: str
    """major.minor."""

    @classmethod
    def of(cls, text: str) -> DevicePlatform:
        """From words such as `aarch64-py310`. Raises SettingOutOfRange."""
        match = re.fullmatch(r"(\w+)-py3(\d+)", text)
        platform = cls(match[1], f"3.{match[2]}") if match else None
        if platform is None or platform not in ALL_PLATFORMS:
            raise SettingOutOfRange("the platform", repr(text), f"one of {', '.join(map(str, ALL_PLATFORMS))}")
        return platform

    def __str__(self) -> str:
        return f"{self.machine}-py{self.python.replace('.', '')}"


ALL_PLATFORMS = tuple(DevicePlatform(machine, python) for machine in MACHINES for python in PYTHONS)


def pinned_requirements(wanted: str) -> str:
    """A requirements file with the exact version and the hashes of whatever `wanted` (one requirement a line) needs.

    It holds for every Python and processor that the agent supports: where they differ, lines carry markers.

    Raises:
        WheelsNotFound: there is no such set of packages; the sentence says which is missing.
    """
    return _compiled(wanted, f"Python {OLDEST_PYTHON} and later", "--universal", "--python-version", OLDEST_PYTHON)


def download_wheels(wanted: str, platform: DevicePlatform, folder: Path) -> None:
    """Puts every file that `platform` needs for `wanted` (one requirement a line) into `folder`, hashes checked.

    Raises:
        WheelsNotFound: a package has no wheel for the platform, or it cannot be fetched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    glibc = f"{platform.machine}-manylinux_2_{NEWEST_GLIBC}"
    options = ["--python-platform", glibc, "--python-version", platform.python]
    requirements = _compiled(wanted, str(platform), *options)
    # pip needs each tag spelled out; the newest first.
    tags = [f"manylinux_2_{minor}_{platform.machine}" for minor in range(NEWEST_GLIBC, 16, -1)]
    tags.append(f"manylinux2014_{platform.machine}")
    options = ["--no-deps", "--only-binary", ":all:", "--implementation", "cp", "--python-version", platform.python]
    options += [word for tag in tags for word in ("--platform", tag)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        _run(
            [*_PIP, "download", *options, "--require-hashes", "--dest", str(folder), "--requirement", file.name],
            str(platform),
        )


_PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")


def _compiled(wanted: str, platform: str, *options: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write(wanted)
        file.flush()
        command = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            "--quiet",
            "--generate-hashes",
            "--only-binary",
            ":all:",
        ]
        # The agent's own wheel comes with the component, and is installed from there.
        command += ["--no-header", "--no-annotate", "--no-emit-package", DISTRIBUTION, *options, file.name]
        return _run(command, platform)


def _run(command: Sequence[str], platform: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise WheelsNotFound(platform, " ".join(done.stderr.split())[-600:] or "the resolver failed without a word")
    return done.stdout
