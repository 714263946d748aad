"""What models and their versions may be called on the command line."""

from __future__ import annotations

import re

from agent.workbench.errors import SettingOutOfRange

_VERSION = re.compile(r"(0|[1-9][0-9]{0,5})(\.(0|[1-9][0-9]{0,5})){2}")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def is_version(text: str) -> bool:
    """Whether it is major.minor.patch as Greengrass takes it: a semantic version, whose numbers have no leading
    zeros."""
    return _VERSION.fullmatch(text) is not None


def check_version(text: str) -> None:
    """Raises SettingOutOfRange: `--version` is no version."""
    if not is_version(text):
        allowed = "three numbers of at most six digits, without leading zeros, such as 1.0.0"
        raise SettingOutOfRange("--version", repr(text), allowed)


def check_name(text: str) -> None:
    """Raises SettingOutOfRange: `--name` cannot be part of a file's name everywhere."""
    if not _NAME.fullmatch(text):
        allowed = "1 to 100 letters, digits, '.', '-' and '_', not starting with a dot"
        raise SettingOutOfRange("--name", repr(text), allowed)
