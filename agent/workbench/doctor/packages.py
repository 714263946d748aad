"""Python packages: versions, and those that get in each other's way."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

from agent.workbench.doctor.finding import Finding

NEEDED = ("grpcio", "protobuf", "msgspec", "numpy", "Pillow")
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13-bindings")
MANY_TENSORRTS = ("tensorrt-cu11", "tensorrt-cu12", "tensorrt-cu13")
"""`tensorrt` brings one of these; two of them lie in the same folder."""


def version_of(distribution: str) -> str | None:
    """None: it is not installed in this environment."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def package_findings(version: Callable[[str], str | None] = version_of) -> list[Finding]:
    found = {name: version(name) for name in (*NEEDED, *RUNTIMES, *MANY_TENSORRTS)}
    missing = [name for name in NEEDED if found[name] is None]
    told = ", ".join(f"{name} {number}" for name, number in found.items() if number is not None)
    findings = [Finding("packages", told or "none")]
    if missing:
        todo = "install the agent again: pip install 'vision-edge-agent[cpu]'"
        findings.append(Finding("packages", f"missing: {', '.join(missing)}", "problem", todo))
    if found["onnxruntime"] and found["onnxruntime-gpu"]:
        what = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files"
        todo = (
            "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'vision-edge-agent[cpu]' (device cuda: [gpu])"
        )
        findings.append(Finding("packages", what, "problem", todo))
    several = [name for name in MANY_TENSORRTS if found[name]]
    if len(several) > 1:
        what = f"{' and '.join(several)} are installed and overwrite each other's files"
        findings.append(Finding("packages", what, "problem", "pip uninstall all of them, then install one"))
    return findings
