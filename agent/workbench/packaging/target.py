"""What a package is made for, from the words of the command line.

The words and which go together are those of Lookout for Vision's packaging jobs (its developer guide, "Package
settings"), and today's Jetsons.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

import msgspec

from agent.packages.manifest import Target, TargetDevice, TargetPlatform
from agent.workbench.errors import SettingOutOfRange

DEVICES: tuple[str, ...] = get_args(get_type_hints(TargetDevice)["name"])
ARCHITECTURES = ("X86_64", "ARM64")
NVIDIA_OPTIONS = {
    "gpu-code": (re.compile(r"sm_[0-9]{2,3}"), "such as sm_87"),
    "trt-ver": (re.compile(r"[0-9]+(\.[0-9]+){1,3}"), "TensorRT's version, such as 10.3.0"),
    "cuda-ver": (re.compile(r"[0-9]+(\.[0-9]+){1,2}"), "CUDA's version, such as 12.6"),
}
CPU_OPTIONS = {"mcpu": (re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}"), "an instruction set, such as core-avx2")}
DEFAULT_MCPU = "core-avx2"
"""Of X86_64 without accelerator, where nothing else is said."""


def target_of(device: str | None, platform: str | None, compiler_options: Sequence[str]) -> Target | None:
    """The target that was asked for; None where none was.

    `device` is one of `DEVICES`; `platform` is OS/ARCHITECTURE or OS/ARCHITECTURE/ACCELERATOR; `compiler_options` are
    KEY=VALUE each: all of `NVIDIA_OPTIONS` for a platform with NVIDIA, else those of `CPU_OPTIONS`.

    Raises:
        SettingOutOfRange: both kinds of target, an unknown word, options without a platform or of another one.
    """
    if device is not None and platform is not None:
        raise SettingOutOfRange("--target-device", f"{device!r} and --target-platform too", "given without the other")
    if platform is not None:
        return _platform(platform, compiler_options)
    if compiler_options:
        raise SettingOutOfRange(
            "--compiler-option", f"{compiler_options[0]!r} without --target-platform", "given together with it"
        )
    if device is None:
        return None
    if device not in DEVICES:
        raise SettingOutOfRange("--target-device", repr(device), f"one of {', '.join(DEVICES)}")
    return msgspec.convert({"kind": "device", "name": device}, TargetDevice)


def _platform(text: str, given: Sequence[str]) -> TargetPlatform:
    system, _, rest = text.partition("/")
    architecture, slash, accelerator = rest.partition("/")
    if system != "LINUX" or architecture not in ARCHITECTURES or (slash and accelerator != "NVIDIA"):
        raise SettingOutOfRange(
            "--target-platform", repr(text), "LINUX/X86_64, LINUX/ARM64, LINUX/X86_64/NVIDIA or LINUX/ARM64/NVIDIA"
        )
    options = _options(text, given, NVIDIA_OPTIONS if accelerator else CPU_OPTIONS)
    missing = [key for key in NVIDIA_OPTIONS if accelerator and key not in options]
    if missing:
        raise SettingOutOfRange(
            "--compiler-option", f"without {', '.join(missing)}", f"given for each of {', '.join(NVIDIA_OPTIONS)}"
        )
    if architecture == "X86_64" and not accelerator:
        options.setdefault("mcpu", DEFAULT_MCPU)
    values: dict[str, Any] = {"kind": "platform", "os": system, "architecture": architecture}
    values |= {"accelerator": accelerator or None, "compiler_options": options}
    return msgspec.convert(values, TargetPlatform)


def _options(platform: str, given: Sequence[str], known: dict[str, tuple[re.Pattern[str], str]]) -> dict[str, str]:
    options: dict[str, str] = {}
    for option in given:
        key, _, value = option.partition("=")
        if key not in known:
            raise SettingOutOfRange(
                "--compiler-option", repr(option), f"KEY=VALUE; {platform} takes {', '.join(known)}"
            )
        pattern, allowed = known[key]
        if not pattern.fullmatch(value):
            raise SettingOutOfRange(f"--compiler-option {key}", repr(value), allowed)
        if options.setdefault(key, value) != value:
            raise SettingOutOfRange(f"--compiler-option {key}", f"{options[key]!r} and {value!r}", "given once")
    return options
