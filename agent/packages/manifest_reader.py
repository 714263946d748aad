"""Reading a manifest: data from outside, so every step refuses what it does not know.

Bounded in size and depth, strict JSON, every key and value checked against the types of `agent.packages.manifest`, and
then what the types cannot say. What comes out can be trusted by everything inside.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import PurePosixPath
from typing import Any, NoReturn

import msgspec

from agent.errors import BadManifest
from agent.packages.manifest import MAX_BYTES, AgentPreprocessing, Manifest, PackageFile
from agent.packages.palette import BACKGROUND, PALETTE

WHERE = re.compile(r" - at `(?:key` in `)?\$\.?([\w.\[\]]{0,200})`\Z")
"""How msgspec's messages end, a key of a mapping being ``- at `key` in `$.self_test[0].tolerance` ``. Before that they
quote what a manifest holds, which may look the same: so nothing is taken for a path that is not short and plain."""


def read_manifest(content: bytes) -> Manifest:
    """The manifest in `content`, checked.

    Raises:
        BadManifest: it is no strict JSON, or a field is missing, unknown or not allowed; names field and value.
    """
    raw = _strict_json(content)
    if isinstance(raw, dict) and raw.get("format_version") != 1:
        raise BadManifest("format_version", raw.get("format_version"), "this agent reads format version 1")
    try:
        manifest = msgspec.convert(raw, Manifest, strict=True)
    except msgspec.ValidationError as error:
        _refuse(error, raw)
    _check_consistency(manifest)
    return manifest


def _strict_json(content: bytes) -> Any:
    if len(content) > MAX_BYTES:
        raise BadManifest(None, None, f"it holds {len(content)} bytes; at most {MAX_BYTES} are read")

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise BadManifest(None, key, "the key stands there twice")
            found[key] = value
        return found

    def finite(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise BadManifest(None, text, "numbers must be finite")
        return number

    try:
        raw = json.loads(
            content.decode("utf-8"), object_pairs_hook=no_duplicates, parse_constant=finite, parse_float=finite
        )
        json.dumps(raw, ensure_ascii=False).encode("utf-8")
        return raw
    except UnicodeEncodeError:  # an escape such as \ud800 alone: no name of a file, no text of a sentence
        raise BadManifest(None, None, "an escape stands for half a character (a lone surrogate)") from None
    except UnicodeDecodeError as error:
        raise BadManifest(None, None, f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadManifest(None, None, f"no JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise BadManifest(None, None, "it is nested too deeply") from None
    except ValueError:  # from int(): Python converts no more than some thousands
        raise BadManifest(None, None, "a whole number has too many digits") from None


def _refuse(error: msgspec.ValidationError, raw: Any) -> NoReturn:
    """Says which field and value msgspec did not accept; its message ends in the path: - at `$.image.width`."""
    found = WHERE.search(str(error))
    reason, path = (str(error)[: found.start()], found[1]) if found else (str(error), "")
    # It quotes unknown keys and values: one line, not endless.
    reason = "".join(character if character.isprintable() else "?" for character in reason[:200]).replace("`", "'")
    value = raw
    for key in re.findall(r"[^.\[\]]+", path):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:  # msgspec writes [...] for "some value of this mapping"
            break
    scalar = value if isinstance(value, str | int | float | bool | None) else None
    raise BadManifest(path or None, scalar, reason[:1].lower() + reason[1:]) from None


def check_relative_path(field: str, path: str) -> None:
    """A path of a package stays inside it.

    Raises:
        BadManifest: it is absolute, climbs out, is spelled in more than one way, or is no path (URL, NUL, backslash).
    """
    plain = PurePosixPath(path)
    if (
        not plain.parts
        or plain.is_absolute()
        or str(plain) != path
        or ".." in plain.parts
        or re.search(r"[\x00-\x1f\x7f\\:]", path)
    ):
        raise BadManifest(field, path, "paths are relative, inside the package, with '/' between plain names")


def _check_consistency(manifest: Manifest) -> None:
    """What the types cannot say: parts that must agree with each other."""
    outputs = manifest.outputs
    listed: set[str] = set()
    for index, file in enumerate(manifest.files):
        check_relative_path(f"files[{index}].path", file.path)
        if file.path.casefold() in listed:
            raise BadManifest(f"files[{index}].path", file.path, "the file is listed twice")
        listed.add(file.path.casefold())
    paths = {file.path: file for file in manifest.files}
    if not any(file.runtime for file in manifest.files):
        raise BadManifest("files", None, "no file has a 'runtime': there is no model in this package")

    if not outputs.tensors:
        raise BadManifest(
            "outputs", None, "name at least one of score, class_scores, anomaly_map, class_mask and boxes"
        )
    if outputs.anomaly_map and outputs.class_mask:
        raise BadManifest(
            "outputs.class_mask", outputs.class_mask, "anomaly_map is named too; one of them makes the mask"
        )
    if outputs.boxes and (outputs.anomaly_map or outputs.class_mask):
        raise BadManifest(
            "outputs.boxes", None, "anomaly_map or class_mask is named too; one of the three makes the mask"
        )
    if outputs.class_scores and not outputs.normal_class_ids:
        raise BadManifest("outputs.normal_class_ids", None, "class_scores needs to know which classes are normal")

    _check_labels(manifest)
    _check_preprocessing(manifest, paths)
    _check_self_test(manifest, paths)


def _check_preprocessing(manifest: Manifest, paths: dict[str, PackageFile]) -> None:
    preprocessing = manifest.preprocessing
    if isinstance(preprocessing, AgentPreprocessing):
        if any(value <= 0 for value in preprocessing.std):
            raise BadManifest("preprocessing.std", str(preprocessing.std), "every value must be above 0")
        identity = AgentPreprocessing(tensor="-", width=1, height=1)
        as_they_are = (preprocessing.scale, preprocessing.mean, preprocessing.std) == (
            identity.scale,
            identity.mean,
            identity.std,
        )
        if preprocessing.dtype == "uint8" and not as_they_are:
            raise BadManifest("preprocessing.dtype", "uint8", "uint8 pixels go in as they are: no scale, mean and std")
        if not preprocessing.antialias and preprocessing.interpolation not in ("bilinear", "bicubic"):
            raise BadManifest("preprocessing.antialias", False, "only bilinear and bicubic can do without")
        _check_crop(preprocessing)
    region, image = preprocessing.region_of_interest, manifest.image
    if (region or preprocessing.ignore_mask) and image.any_size:
        raise BadManifest("image.any_size", True, "a region of interest or an ignore mask needs images of one size")
    if region and (region.x + region.width > image.width or region.y + region.height > image.height):
        raise BadManifest("preprocessing.region_of_interest", None, "it reaches outside the image")
    _check_raw_file("preprocessing.ignore_mask", preprocessing.ignore_mask, image.width * image.height, paths)


def _check_crop(preprocessing: AgentPreprocessing) -> None:
    side = preprocessing.shorter_side
    if side is None:
        return
    if preprocessing.resize != "crop":
        raise BadManifest("preprocessing.shorter_side", side, "it is for 'resize' crop only")
    if side < max(preprocessing.width, preprocessing.height):
        raise BadManifest("preprocessing.shorter_side", side, "it must cover the tensor's width and height")


def _check_self_test(manifest: Manifest, paths: dict[str, PackageFile]) -> None:
    image = manifest.image
    labels = {label.name for label in manifest.labels}
    for index, test in enumerate(manifest.self_test):
        field = f"self_test[{index}]"
        _check_raw_file(f"{field}.path", test.path, test.width * test.height * 3, paths)
        if not image.any_size and (test.width, test.height) != (image.width, image.height):
            raise BadManifest(f"{field}.width", test.width, f"images must be {image.width} x {image.height}")
        unknown = sorted(set(test.areas) - labels)
        if unknown:
            raise BadManifest(f"{field}.areas", unknown[0], "no label has this name")


def _check_labels(manifest: Manifest) -> None:
    names = [label.name for label in manifest.labels]
    if manifest.task == "segmentation":
        if not manifest.outputs.draws_mask:
            raise BadManifest("outputs", None, "segmentation needs an anomaly_map, a class_mask or boxes")
        if len(names) < 2 or names[0] != BACKGROUND:
            raise BadManifest("labels", None, "segmentation needs 'background' first and at least one anomaly type")
        if len(set(names)) != len(names):
            raise BadManifest("labels", None, "two labels have the same name")
        colors = manifest.colors
        if colors[0] != PALETTE[0]:
            raise BadManifest("labels[0].color", colors[0], f"background is {PALETTE[0]}, always")
        for index, color in enumerate(colors):
            if color in colors[:index]:
                raise BadManifest(f"labels[{index}].color", color, "another label has this colour (default ones count)")
    if manifest.outputs.class_mask and not set(manifest.mask_labels) - {BACKGROUND}:
        raise BadManifest(
            "outputs.class_mask", manifest.outputs.class_mask, "none of its channels paints an anomaly type"
        )
    if manifest.decision.combination != "class" and manifest.task != "segmentation":
        raise BadManifest("decision.combination", manifest.decision.combination, "only segmentation has a mask")
    for index, name in enumerate(manifest.outputs.mask_labels):
        if name not in names:
            raise BadManifest(f"outputs.mask_labels[{index}]", name, "no label has this name")
    _check_masks(manifest, names)


def _check_masks(manifest: Manifest, names: list[str]) -> None:
    outputs = manifest.outputs
    if outputs.mask_bias and len(outputs.mask_bias) != len(manifest.mask_labels):
        raise BadManifest("outputs.mask_bias", None, f"it needs {len(manifest.mask_labels)} numbers, one per channel")
    cover = outputs.map_covers
    if cover and (cover.x + cover.width > 1 or cover.y + cover.height > 1):
        raise BadManifest("outputs.map_covers", None, "it reaches outside the tensor's plane")
    if outputs.boxes:
        if not set(outputs.boxes.labels) - {BACKGROUND}:
            raise BadManifest("outputs.boxes.labels", None, "none of the classes is an anomaly type")
        for index, name in enumerate(outputs.boxes.labels):
            if manifest.task == "segmentation" and name not in names:
                raise BadManifest(f"outputs.boxes.labels[{index}]", name, "no label has this name")


def _check_raw_file(field: str, path: str | None, size: int, files: dict[str, PackageFile]) -> None:
    if path is None:
        return
    if path not in files:
        raise BadManifest(field, path, "the file is not listed in 'files'")
    if files[path].size != size:
        raise BadManifest(field, path, f"it is listed with {files[path].size} bytes, not {size}")
