"""Says which setting is wrong and what is allowed; msgspec by itself says only the first."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import inspect


def sentence(error: msgspec.ValidationError, settings: type[msgspec.Struct]) -> str:
    """For example: source.reader: Invalid enum value 'cv'; allowed: gstreamer, opencv."""
    what, _, where = str(error).partition(" - at `$.")
    place = re.sub(r"\[.*?\]", "", where.removesuffix("`"))  # of a list's element: the list
    kind = _kind_at(place, settings)
    if named := re.fullmatch(r"Object (missing required|contains unknown) field `(.*)`", what):
        problem, name = named.groups()
        full_name = f"{place}.{name}".lstrip(".")
        if problem == "missing required":
            return f"{full_name}: required, but not set; the README lists all settings, --help those that have a flag"
        return f"{full_name}: there is no such setting; there are {', '.join(field.name for field in kind.fields)}"
    if isinstance(kind, inspect.LiteralType):
        return f"{place}: {what}; allowed: {', '.join(map(str, kind.values))}"
    if isinstance(kind, inspect.Metadata):
        return f"{place}: expected {kind.extra_json_schema['description']}"
    return f"{place}: {what}"


def _kind_at(place: str, settings: type[msgspec.Struct]) -> Any:
    """What a setting may be, in msgspec's words: one of the types in `msgspec.inspect`."""
    kind: Any = inspect.type_info(settings)
    for name in filter(None, place.split(".")):
        kind = next(field.type for field in kind.fields if field.name == name)
        if isinstance(kind, inspect.UnionType):  # a part that may be left out
            kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
        if isinstance(kind, inspect.VarTupleType):
            kind = kind.item_type
    return kind
