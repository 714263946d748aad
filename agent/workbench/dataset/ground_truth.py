"""Manifests in JSON Lines (SageMaker Ground Truth): what a line says of its image.

A label key may have any name. Its integer has to be there and means nothing; its `-metadata` tells the class, and only
the exact names `normal` and `anomaly` count. What a model's evaluation has added to a line (keys ending in
`-detected`) is no truth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from agent.images.detection import rgb
from agent.packages.palette import BACKGROUND
from agent.workbench.errors import BadManifestLine, NoImagesFound

CLASSIFICATION = "groundtruth/image-classification"
SEGMENTATION = "groundtruth/semantic-segmentation"
METADATA, REFERENCE, DETECTED = "-metadata", "-ref", "-detected"
SOURCE = "source-ref"
NORMAL, ANOMALY = "normal", "anomaly"
MAX_COLORS = 255
"""Entries of a colour map: label indices are bytes, and 0 is background."""


@dataclass(frozen=True)
class MaskReference:
    """Where a line's mask is, and what its colours mean."""

    reference: str
    colors: tuple[tuple[str, tuple[int, int, int]], ...]
    """Class name and colour (red, green, blue), in the order of the map; background is called `background`."""

    @property
    def only_background(self) -> bool:
        """Whether no anomaly type can be in the mask: normal images often refer to one that nobody has stored."""
        return all(name == BACKGROUND for name, _ in self.colors)


@dataclass(frozen=True)
class ManifestLine:
    """One line of a manifest."""

    manifest: Path
    number: int
    """1 for the first line."""
    entry: dict[str, Any]
    """As it stands."""

    @property
    def reference(self) -> str:
        """What names the image."""
        return str(self.entry[SOURCE])

    @property
    def is_anomalous(self) -> bool | None:
        """What the classification label says; None without one.

        Raises:
            BadManifestLine: two labels contradict each other.
        """
        said = {metadata.get("class-name") for _, metadata in self._labels(CLASSIFICATION)} & {NORMAL, ANOMALY}
        if len(said) > 1:
            raise self.bad("one label says 'normal' and another 'anomaly'; keep one of them")
        return None if not said else ANOMALY in said

    @property
    def mask(self) -> MaskReference | None:
        """The segmentation label; None without one.

        Raises:
            BadManifestLine: it names no file, or its colour map cannot be used.
        """
        for key, metadata in self._labels(SEGMENTATION):
            if key.endswith(REFERENCE):
                if not isinstance(self.entry[key], str):
                    raise self.bad(f"'{key}' names no mask")
                return MaskReference(self.entry[key], self._colors(key + METADATA, metadata))
        return None

    def resolve(self, reference: str, root: Path | None) -> Path:
        """The local file behind a reference: relative, absolute or `s3://`.

        With `root`, the reference is looked for below it: whole, and then without its first folders, one after the
        other, so that it does not matter how much of a bucket's tree was copied.

        Raises:
            BadManifestLine: there is no such file here.
        """
        remote = reference.startswith("s3://")
        path = PurePosixPath(reference.removeprefix("s3://"))
        candidates = [] if remote else [self.manifest.parent / path]  # pathlib lets an absolute path stand for itself
        if root is not None:
            parts = [part for part in path.parts if part not in ("/", "..")]
            candidates += [root.joinpath(*parts[start:]) for start in range(len(parts))]
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is not None:
            return found
        if root is not None:
            raise self.bad(f"'{reference}' is not found, neither as it stands nor below {root}")
        why = f"'{reference}' is in S3" if remote else f"there is no file {candidates[0]}"
        raise self.bad(f"{why}. Give --root FOLDER, the folder that holds the images here")

    def bad(self, why: str) -> BadManifestLine:
        """The refusal of this line."""
        return BadManifestLine(self.manifest, self.number, why)

    def _labels(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each label key of a kind, with its metadata."""
        for key, metadata in self.entry.items():
            label = key.removesuffix(METADATA)
            if (
                label != key
                and label in self.entry
                and not label.endswith(DETECTED)
                and isinstance(metadata, dict)
                and metadata.get("type", CLASSIFICATION) == kind
            ):
                yield label, metadata

    def _colors(self, key: str, metadata: dict[str, Any]) -> tuple[tuple[str, tuple[int, int, int]], ...]:
        colors = metadata.get("internal-color-map")
        if not isinstance(colors, dict) or not 1 <= len(colors) <= MAX_COLORS:
            raise self.bad(f"'{key}' has no 'internal-color-map' with 1 to {MAX_COLORS} entries")
        read = []
        for number, color in sorted(colors.items(), key=lambda item: (len(item[0]), item[0])):  # "2" before "10"
            name, hex_color = (color.get("class-name"), color.get("hex-color")) if isinstance(color, dict) else (0, 0)
            if not isinstance(name, str) or not name or not isinstance(hex_color, str):
                raise self.bad(f"entry '{number}' of the internal-color-map needs a 'class-name' and a 'hex-color'")
            if re.fullmatch("#[0-9A-Fa-f]{6}", hex_color) is None:
                raise self.bad(f"entry '{number}' of the internal-color-map has the hex-color {hex_color!r:.40}")
            read.append((BACKGROUND if name.lower() == BACKGROUND else name, rgb(hex_color)))
        return tuple(read)


def tells_an_answer(entry: Mapping[str, Any]) -> bool:
    """Whether a line holds what a model answered, beside labels or without any."""
    return any(key.endswith(DETECTED) for key in entry)


def read_lines(manifest: Path) -> list[ManifestLine]:
    """The lines of a manifest, empty ones left out.

    Raises:
        NoImagesFound: it is no text in UTF-8.
        BadManifestLine: a line is no JSON object that names an image.
    """
    lines = []
    for line in each_line(manifest):
        if isinstance(line, BadManifestLine):
            raise line
        lines.append(line)
    return lines


def each_line(manifest: Path) -> Iterator[ManifestLine | BadManifestLine]:
    """As `read_lines`, for those who go on after a line that cannot be used: its refusal stands in its place.

    Raises:
        NoImagesFound: it is no text in UTF-8.
    """
    try:
        texts = manifest.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise NoImagesFound(str(manifest), "the file is neither an image nor a manifest in UTF-8") from None
    for number, text in enumerate(texts, start=1):
        if text.strip():
            try:
                yield _read_line(manifest, number, text)
            except BadManifestLine as refusal:
                yield refusal


def _read_line(manifest: Path, number: int, text: str) -> ManifestLine:
    try:
        entry = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise BadManifestLine(
            manifest, number, f"this is no JSON ({error}). A manifest has one JSON object in each line"
        ) from None
    if not isinstance(entry, dict) or not isinstance(entry.get(SOURCE), str):
        raise BadManifestLine(manifest, number, f"there is no '{SOURCE}'; let it name the image")
    return ManifestLine(manifest, number, entry)
