"""A Jetson: which one, with which JetPack, how hot.

Sources: /etc/nv_tegra_release and /proc/device-tree (Jetson Linux Developer Guide); /sys/class/thermal (Linux kernel
documentation, "Generic Thermal Sysfs driver How To").
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

from agent.workbench.doctor.finding import Finding
from agent.workbench.doctor.system_file import text_of

JETPACKS = {"35": ("5", "3.8"), "36": ("6", "3.10"), "38": ("7", "3.12"), "39": ("7", "3.12")}
"""Major release of Jetson Linux to that of JetPack, and the Python that its TensorRT is for."""
OLDEST_JETPACK = 6
"""JetPack 5's Python is too old for the agent."""


def jetson_findings(root: Path, python: str | None = None) -> list[Finding]:
    """None where this is no Jetson. `root`: where the system's files are; `python`: this one's version."""
    release = text_of(root / "etc/nv_tegra_release")
    # A container has the device tree, and the release only where it was handed in.
    if not release and "nvidia,tegra" not in text_of(root / "proc/device-tree/compatible"):
        return []
    return [_board(root, release, python or platform.python_version()), *_temperature(root / "sys/class/thermal")]


def _board(root: Path, release: str, python: str) -> Finding:
    board = text_of(root / "proc/device-tree/model").strip("\0\n") or "a Jetson"
    found = re.search(r"R(\d+).*?REVISION: ([\d.]+)", release)
    if found is None:
        return Finding("Jetson", f"{board}, Jetson Linux of an unknown release, Python {python}")
    jetpack, its_python = JETPACKS.get(found[1], ("", ""))
    named = f" (JetPack {jetpack})" if jetpack else ""
    what = f"{board}, Jetson Linux {found[1]}.{found[2]}{named}, Python {python}"
    if jetpack and int(jetpack) < OLDEST_JETPACK:
        return Finding(
            "Jetson", what, "problem", f"flash JetPack {OLDEST_JETPACK} or newer: the agent needs Python 3.10"
        )
    if its_python and not python.startswith(f"{its_python}."):
        what += f"; JetPack's TensorRT is for Python {its_python}"
        todo = "to use it: /usr/bin/python3 -m venv --system-site-packages, and install the agent there"
        return Finding("Jetson", what, "note", todo)
    return Finding("Jetson", what)


def _temperature(zones: Path) -> list[Finding]:
    """Of the hottest place, and whether it is hot enough for the kernel to slow the device down."""
    temperatures = {zone: _degrees(zone / "temp") for zone in zones.glob("thermal_zone*")}
    known = {zone: degrees for zone, degrees in temperatures.items() if degrees is not None}
    if not known:
        return []
    hottest = max(known, key=lambda zone: known[zone])
    what = f"{known[hottest]:.0f} °C at {text_of(hottest / 'type').strip()}, the hottest place"
    slowed = [zone for zone, degrees in known.items() if any(degrees >= limit for limit in _limits(zone))]
    if slowed:
        names = ", ".join(sorted(text_of(zone / "type").strip() for zone in slowed))
        todo = "cool it better (fan, housing, sunlight), or choose a lower power mode (nvpmodel)"
        return [Finding("temperature", f"{what}; {names} slows the device down", "problem", todo)]
    return [Finding("temperature", what)]


def _limits(zone: Path) -> list[float]:
    """Degrees from which clocks are lowered."""
    kinds = {file: text_of(file).strip() for file in zone.glob("trip_point_*_type")}
    limits = [
        _degrees(file.with_name(file.name.replace("_type", "_temp")))
        for file, kind in kinds.items()
        if kind in ("passive", "hot", "critical")
    ]
    return [degrees for degrees in limits if degrees is not None and degrees > 0]


def _degrees(file: Path) -> float | None:
    try:
        return int(text_of(file)) / 1000
    except ValueError:  # a sensor that is switched off
        return None
