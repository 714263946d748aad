"""What the camera client keeps for the next model: pictures, and in `capture.manifest` the answer that each one got.

A manifest's line names the picture and its mask relative to the manifest, so that the folder may be moved as a whole.
Under `inspection` stands what the client told of the picture, the agent's answer in it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.images.detection import Detection, Region
from agent.workbench.dataset.ground_truth import ManifestLine, each_line
from agent.workbench.dataset.image_paths import is_image
from agent.workbench.errors import BadManifestLine, NoCapturedPictures, NotAsCaptured
from agent.workbench.image_file import read_image

MANIFEST = "capture.manifest"
INSPECTION = "inspection"
MASK = "anomaly-mask-ref-detected"

Verdict = Literal["pass", "reject", "uncertain"]
"""What the camera client made of an answer by its own rules."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


@dataclass(frozen=True)
class CapturedPicture:
    """A picture that was kept, and what was said of it then. Pixels are decoded when asked for and not kept."""

    line: ManifestLine
    root: Path | None
    """Where references lead that lead nowhere from the manifest."""
    camera: str
    time: str
    """When the frame was captured: ISO 8601, UTC."""
    file: str
    """That the frame came from; empty for cameras."""
    verdict: Verdict
    model: str
    """The component that answered."""
    version: str
    """Of its model; empty where the agent did not tell."""
    width: int
    height: int
    then: Detection
    """The answer, without its mask."""
    is_anomalous: bool | None
    """What a label says that somebody has added since; None without one."""

    @property
    def name(self) -> str:
        """Of the picture's file."""
        return PurePosixPath(self.line.reference).name

    @property
    def path(self) -> Path:
        """Of the picture's file. Raises BadManifestLine where there is none."""
        return self.line.resolve(self.line.reference, self.root)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture: uint8, (height, width, 3), RGB.

        Raises:
            BadManifestLine: it is not where the line says.
            UnreadableImage, ImageSizeNotAllowed: its file cannot be used.
            NotAsCaptured: it has another size.
        """
        return self._read(self.path)

    @property
    def mask(self) -> NDArray[np.uint8] | None:
        """The mask that was answered: uint8, (height, width, 3), RGB, background white; None where there was none.

        Raises as `pixels`, of its own file.
        """
        reference = self.line.entry.get(MASK)
        return self._read(self.line.resolve(reference, self.root)) if isinstance(reference, str) else None

    def _read(self, file: Path) -> NDArray[np.uint8]:
        pixels = read_image(file)
        height, width = pixels.shape[:2]
        if (width, height) != (self.width, self.height):
            raise NotAsCaptured(file, (width, height), (self.width, self.height))
        return pixels


def captured_pictures(
    sources: Sequence[Path], root: Path | None = None, only: Collection[Verdict] = VERDICTS
) -> tuple[list[CapturedPicture], list[BadManifestLine]]:
    """The pictures that the camera client gave one of the verdicts `only`, and the lines that cannot be used.

    `sources` are manifests, or folders with a `capture.manifest` anywhere in them: each camera has a folder of its own.

    Raises:
        NoCapturedPictures: a source holds no manifest, or there is no such picture.
        NoImagesFound: a manifest is no text in UTF-8.
    """
    pictures: list[CapturedPicture] = []
    unusable: list[BadManifestLine] = []
    # A manifest counts once, whichever way it is named.
    for manifest in {path.resolve(): path for source in sources for path in _manifests(source)}.values():
        for line in each_line(manifest):
            try:
                if isinstance(line, BadManifestLine):
                    raise line
                picture = _captured(line, root)
            except BadManifestLine as refusal:
                unusable.append(refusal)
            else:
                if picture.verdict in only:
                    pictures.append(picture)
    if not pictures and not unusable:
        wanted = "" if set(only) == set(VERDICTS) else f" whose verdict was {' or '.join(only)}"
        raise NoCapturedPictures(", ".join(map(str, sources)), f"no line tells of a picture{wanted}")
    return pictures, unusable


def _manifests(source: Path) -> list[Path]:
    if source.is_file() and not is_image(source):
        return [source]
    manifests = sorted(source.rglob(MANIFEST))
    if not manifests:
        raise NoCapturedPictures(str(source), f"there is no {MANIFEST}")
    return manifests


class _Anomaly(msgspec.Struct):
    name: str
    total_percentage_area: Fraction
    hex_color: str


class _Inspection(msgspec.Struct):
    """What the camera client tells of a picture; keys that are not used here are left out."""

    camera: str
    time: str
    verdict: Verdict
    model: str
    width: int
    height: int
    is_anomalous: bool
    confidence: Fraction
    anomaly_score: Fraction
    anomaly_threshold: Fraction
    anomalies: list[_Anomaly]
    model_version: str = ""
    file: str = ""


def _captured(line: ManifestLine, root: Path | None) -> CapturedPicture:
    if INSPECTION not in line.entry:
        raise line.bad(
            f"there is no '{INSPECTION}', so nobody knows what was answered; `edge-agent evaluate` needs none"
        )
    try:
        told = msgspec.convert(line.entry[INSPECTION], _Inspection)
    except msgspec.ValidationError as error:
        raise line.bad(f"'{INSPECTION}' is not as the camera client writes it ({error}); take the line out") from None
    regions = tuple(Region(found.name, found.total_percentage_area, found.hex_color) for found in told.anomalies)
    return CapturedPicture(
        line=line,
        root=root,
        camera=told.camera,
        time=told.time,
        file=told.file,
        verdict=told.verdict,
        model=told.model,
        version=told.model_version,
        width=told.width,
        height=told.height,
        then=Detection(told.is_anomalous, told.confidence, told.anomaly_score, told.anomaly_threshold, regions),
        is_anomalous=line.is_anomalous,
    )
