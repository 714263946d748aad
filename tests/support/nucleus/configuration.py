"""What the nucleus knows of a component's configuration, and how the two nuclei hand it out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

Configuration = dict[str, Any]


class NoSuchKey(Exception):
    """The configuration has nothing at a key path."""


class ConfigurationStore:
    """The configuration of one component."""

    def __init__(self, configuration: Configuration) -> None:
        self._root = copy.deepcopy(configuration)

    def at(self, path: Sequence[str]) -> Configuration:
        """What lies at `path`; a value comes as an object with its own key. Raises NoSuchKey."""
        value: Any = self._root
        for key in path:
            if not isinstance(value, dict) or key not in value:
                raise NoSuchKey(path)
            value = value[key]
        return copy.deepcopy(value) if isinstance(value, dict) else {path[-1]: copy.deepcopy(value)}

    def merge(self, values: Configuration, path: Sequence[str] = ()) -> list[list[str]]:
        """Merges `values` at `path`; the key paths of values that are new or different."""
        node = self._root
        for key in path:
            node = node.setdefault(key, {})
        changed = [[*path, *where] for where in _differences(node, values)]
        _merge(node, copy.deepcopy(values))
        return changed

    def remove(self, key: str) -> list[list[str]]:
        """Removes a key of the top, as a deployment's reset does; its key path, where there was one."""
        return [[key]] if self._root.pop(key, None) is not None else []


def _differences(old: Configuration, new: Configuration) -> Iterator[list[str]]:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            yield from ([key, *rest] for rest in _differences(old[key], value))
        elif key not in old or old[key] != value:
            yield [key]


def _merge(old: Configuration, new: Configuration) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            _merge(old[key], value)
        else:
            old[key] = value


def as_java_gives_it(value: Any) -> Any:
    """The Java nucleus reads numbers as floating point."""
    return _mapped(value, lambda leaf: float(leaf) if type(leaf) is int else leaf)


def as_lite_gives_it(value: Any) -> Any:
    """Nucleus lite keeps what a YAML recipe holds as text."""

    def text(leaf: Any) -> Any:
        return str(leaf).lower() if isinstance(leaf, bool) else leaf if leaf is None else str(leaf)

    return _mapped(value, text)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_mapped(each, change) for each in value]
    return change(value)
