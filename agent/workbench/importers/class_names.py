"""What classes are called, and which of them are normal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from agent.packages.manifest import MAX_LABELS, Label
from agent.packages.palette import BACKGROUND
from agent.workbench.errors import BadSource, SettingOutOfRange
from agent.workbench.packaging.draft import background_and

NORMAL_NAMES = frozenset({"normal", "good", "ok", "background"})
"""Class names that mean normal without being told (case does not matter)."""
MAX_NAMES = 10_000
MAX_FILE_BYTES = 1 << 20


def class_names(given: str) -> list[str]:
    """The names in an option's value: a list with commas, or a text file with one name a line.

    Raises:
        SettingOutOfRange: it is no such list, or a name is empty, too long or not printable.
    """
    # os.path: a long list is no path, and pathlib raises that it is too long.
    names = _lines_of(Path(given)) if os.path.isfile(given) else given.split(",")  # noqa: PTH113
    names = [name.strip() for name in names]
    while names and not names[-1]:  # the file's last line break
        names.pop()
    if not names or len(names) > MAX_NAMES or not all(is_class_name(name) for name in names):
        raise SettingOutOfRange(
            "--classes",
            repr(given),
            "names with commas between, or a text file with one name a line (1 to 200 letters)",
        )
    return names


def is_class_name(name: str) -> bool:
    """Whether a mask's label can have this name."""
    return 0 < len(name) <= 200 and name.isprintable()


def normal_ids(wanted: Sequence[str], names: Sequence[str], count: int) -> list[int]:
    """The indices of the classes that `wanted` calls normal, each by its name or its index; sorted.

    Raises:
        SettingOutOfRange: a class is not there, or all of them are normal.
    """
    ids = set()
    for one in wanted:
        if one in names:
            ids |= {index for index, name in enumerate(names) if name == one}
        elif one.isascii() and one.isdigit() and int(one) < count:
            ids.add(int(one))
        else:
            raise SettingOutOfRange("--normal", repr(one), f"{_known(names)} or an index from 0 to {count - 1}")
    if len(ids) == count:
        raise SettingOutOfRange("--normal", ", ".join(wanted), "fewer than all classes: one has to be an anomaly")
    return sorted(ids)


def guessed_normal_ids(names: Sequence[str]) -> list[int]:
    """The classes whose names say normal; empty where none does, or all."""
    ids = [index for index, name in enumerate(names) if name.lower() in NORMAL_NAMES]
    return ids if len(ids) < len(names) else []


def painted_labels(
    source: Path, names: Sequence[str], normal: Sequence[int], merge: str
) -> tuple[list[str], list[Label]]:
    """For each class the label it paints, and the labels: `background` for normal classes, else the class's own name.

    Several classes may have one name. `merge` is the option that gives them one.

    Raises:
        BadSource: there are more anomaly types than a package has labels.
    """
    painted = [BACKGROUND if index in normal else name for index, name in enumerate(names)]
    types = list(dict.fromkeys(name for name in painted if name != BACKGROUND))
    if len(types) >= MAX_LABELS:
        raise BadSource(
            source,
            f"it tells {len(types)} anomaly types apart, and a mask has at most {MAX_LABELS - 1}",
            f"give several classes one name with {merge}",
        )
    return painted, background_and(*types)


def listed(names: Sequence[str]) -> str:
    """Names for a sentence: the first ten."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _known(names: Sequence[str]) -> str:
    return f"one of the classes {listed(names)}," if names else "given with --classes,"


def _lines_of(file: Path) -> list[str]:
    with file.open("rb") as opened:
        content = opened.read(MAX_FILE_BYTES + 1)
    try:
        if len(content) > MAX_FILE_BYTES:
            raise SettingOutOfRange("--classes", repr(str(file)), f"a text file of at most {MAX_FILE_BYTES} bytes")
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise SettingOutOfRange("--classes", repr(str(file)), "a text file in UTF-8") from None
