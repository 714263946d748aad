"""What a package is made for, from the command line's words."""

from __future__ import annotations

import pytest

from agent.packages.manifest import TargetDevice, TargetPlatform
from agent.workbench.errors import SettingOutOfRange
from agent.workbench.packaging.target import DEVICES, target_of

NVIDIA = ["gpu-code=sm_87", "trt-ver=10.3.0", "cuda-ver=12.6"]


def test_nothing_asked_for_is_no_target() -> None:
    assert target_of(None, None, []) is None


@pytest.mark.parametrize("device", ["jetson_xavier", "jetson_orin", "jetson_thor", "x86_cpu", "arm_cpu"])
def test_every_device_is_taken(device: str) -> None:
    target = target_of(device, None, [])
    assert isinstance(target, TargetDevice) and target.name == device
    assert device in DEVICES


@pytest.mark.parametrize("architecture", ["X86_64", "ARM64"])
def test_a_platform_with_nvidia_needs_all_its_options(architecture: str) -> None:
    target = target_of(None, f"LINUX/{architecture}/NVIDIA", NVIDIA)
    assert target == TargetPlatform(
        "LINUX", architecture, "NVIDIA", {"gpu-code": "sm_87", "trt-ver": "10.3.0", "cuda-ver": "12.6"}
    )
    with pytest.raises(SettingOutOfRange, match="without trt-ver, cuda-ver"):
        target_of(None, f"LINUX/{architecture}/NVIDIA", NVIDIA[:1])


def test_mcpu_has_a_default_on_x86_alone() -> None:
    assert target_of(None, "LINUX/X86_64", []) == TargetPlatform("LINUX", "X86_64", None, {"mcpu": "core-avx2"})
    assert target_of(None, "LINUX/X86_64", ["mcpu=skylake"]) == TargetPlatform(
        "LINUX", "X86_64", None, {"mcpu": "skylake"}
    )
    assert target_of(None, "LINUX/ARM64", []) == TargetPlatform("LINUX", "ARM64")
    assert target_of(None, "LINUX/ARM64", ["mcpu=cortex-a72"]) == TargetPlatform(
        "LINUX", "ARM64", None, {"mcpu": "cortex-a72"}
    )


@pytest.mark.parametrize(
    ("device", "platform", "options", "said"),
    [
        ("jetson_orin", "LINUX/ARM64", [], "without the other"),
        ("jetson_nano", None, [], "jetson_xavier, jetson_orin, jetson_thor, x86_cpu, arm_cpu"),
        ("jetson_orin", None, ["mcpu=x"], "without --target-platform"),
        (None, None, ["mcpu=x"], "without --target-platform"),
        (None, "WINDOWS/X86_64", [], "LINUX/X86_64, LINUX/ARM64"),
        (None, "LINUX", [], "LINUX/X86_64, LINUX/ARM64"),
        (None, "LINUX/amd64", [], "LINUX/X86_64, LINUX/ARM64"),
        (None, "LINUX/X86_64/", [], "LINUX/X86_64, LINUX/ARM64"),
        (None, "LINUX/X86_64/AMD", [], "LINUX/X86_64/NVIDIA"),
        (None, "LINUX/X86_64", ["gpu-code=sm_87"], "LINUX/X86_64 takes mcpu"),
        (None, "LINUX/X86_64/NVIDIA", [*NVIDIA, "mcpu=x"], "takes gpu-code, trt-ver, cuda-ver"),
        (None, "LINUX/X86_64/NVIDIA", ["gpu-code=87"], "sm_87"),
        (None, "LINUX/X86_64/NVIDIA", ["trt-ver=ten"], "10.3.0"),
        (None, "LINUX/X86_64/NVIDIA", ["cuda-ver=12"], "12.6"),
        (None, "LINUX/X86_64", ["mcpu"], "core-avx2"),
        (None, "LINUX/X86_64", ["mcpu=a", "mcpu=b"], "given once"),
    ],
)
def test_a_wrong_word_is_answered_with_what_is_allowed(
    device: str | None, platform: str | None, options: list[str], said: str
) -> None:
    with pytest.raises(SettingOutOfRange) as refused:
        target_of(device, platform, options)
    assert said in str(refused.value)
