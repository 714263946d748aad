"""What a package is made for, from the words of the command line."""

from __future__ import annotations

from collections.abc import Sequence

from agent.packages.manifest import Target


def target_of(device: str | None, platform: str | None, compiler_options: Sequence[str]) -> Target | None:
    """The target that was asked for; None where none was.

    Raises:
        SettingOutOfRange: both kinds of target, an unknown word, or options without a platform.
    """
    raise NotImplementedError
