"""Manifests that are wrong in one place or a few, drawn by chance from good ones of every kind."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from agent.packages.manifest import (
    MAX_BYTES,
    AgentPreprocessing,
    Boxes,
    Cover,
    Decision,
    GraphPreprocessing,
    Identity,
    ImageSize,
    Label,
    LinearCalibration,
    LogisticCalibration,
    Manifest,
    OnnxModel,
    Outputs,
    PackageFile,
    Rectangle,
    Reference,
    SelfTestImage,
    TargetDevice,
    TargetPlatform,
    TensorRtEngine,
    write_manifest,
)

WIDTH, HEIGHT = 96, 64
SHA256 = "0" * 64
LABELS = [Label("background"), Label("dent", "#FF0000"), Label("scratch")]

NUMBERS = (0, -1, 1, 63, 64, 4096, 4097, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, -(10**4000))
FRACTIONS = (0.0, -0.0, 0.5, 1.0, 1.0000001, -1e-9, 5e-324, 1e308, -1e308, 1e-308)
TEXTS = (
    *(
        "",
        " ",
        ".",
        "..",
        "../x",
        "a/../b",
        "a//b",
        "/etc/passwd",
        "~/x",
        "http://host/x",
        "C:\\x",
        "\\\\h\\x",
    ),
    *("a\0b", "a\nb", "1.0.0\n", "#FFFFFF\n", "\u202e", "\u2028", "\x1b[2J", "\ud800", "x - at `$.y\n`", "`", "%s{}"),
    *("background", "dent", "model.onnx", "MODEL.ONNX", "manifest.json", "onnx", "tensorrt", "agent", "graph", "crop"),
    *("x" * 200, "x" * 201, "é" * 255, "x" * 100_000),
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": {}}, [0] * 3, ["background"] * 3000, {"kind": "none"})
NO_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e400", b"0x10", b"01", b"1_0", b"9" * 5000, b"--1")
DEPTH = 100_000
RARELY = 2000
"""One of so many is as large as a manifest may be: such take the longest to read."""


def good_manifests() -> list[bytes]:
    """One of every kind, all fields of `agent.packages.manifest` among them."""
    return [write_manifest(manifest) for manifest in (_with_map(), _with_mask(), _with_boxes(), _with_classes())]


def _manifest(outputs: Outputs, preprocessing: Any, decision: Decision, **more: Any) -> Manifest:
    files = [
        PackageFile("model.onnx", 1000, SHA256, OnnxModel()),
        PackageFile("engines/model.engine", 2000, SHA256, TensorRtEngine("8.7", "10.3.0", "fp16")),
        PackageFile("self-test/good.rgb", WIDTH * HEIGHT * 3, SHA256),
        PackageFile("ignore.raw", WIDTH * HEIGHT, SHA256),
    ]
    test = SelfTestImage("self-test/good.rgb", WIDTH, HEIGHT, 0.25, False, tolerance={"fp32": 0.01, "fp16": 0.1})
    named = {"task": "segmentation", "labels": LABELS, "self_test": [test], **more}
    return Manifest(
        format_version=1,
        model=Identity("bolts", "1.2.3", "arn:x", "a source", "a licence", 30, "2026-01-01T00:00:00Z"),
        image=ImageSize(WIDTH, HEIGHT),
        preprocessing=preprocessing,
        outputs=outputs,
        decision=decision,
        files=files,
        reference=Reference({"0.5": 0.2, "0.99": 0.4}),
        **named,
    )


def _with_map() -> Manifest:
    preprocessing = AgentPreprocessing(
        tensor="input",
        width=32,
        height=32,
        resize="crop",
        shorter_side=40,
        interpolation="bicubic",
        antialias=False,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        ignore_mask="ignore.raw",
    )
    outputs = Outputs(score="score", anomaly_map="map", map_covers=Cover(0.1, 0.1, 0.8, 0.8))
    decision = Decision(0.5, 0.4, LinearCalibration(10.0, 3.0), "class and mask")
    return _manifest(outputs, preprocessing, decision, target=TargetDevice("jetson_orin"))


def _with_mask() -> Manifest:
    outputs = Outputs(
        class_mask="mask",
        mask_activation="softmax",
        mask_labels=["background", "dent", "scratch", "dent"],
        mask_bias=[0.0, 0.1, -0.1, 0.2],
        mask_score="mean",
    )
    target = TargetPlatform("LINUX", "ARM64", "NVIDIA", {"gpu-code": "sm_87", "trt-ver": "10.3"})
    preprocessing = GraphPreprocessing("image", Rectangle(8, 8, 64, 48), "ignore.raw")
    return _manifest(outputs, preprocessing, Decision(0.5, combination="class or mask"), target=target)


def _with_boxes() -> Manifest:
    boxes = Boxes("output0", "anchors", ["background", "dent", "scratch"], "output1")
    preprocessing = AgentPreprocessing(tensor="images", width=64, height=64, resize="letterbox", padding=114)
    return _manifest(Outputs(boxes=boxes), preprocessing, Decision(0.25))


def _with_classes() -> Manifest:
    outputs = Outputs(class_scores="logits", class_activation="softmax", normal_class_ids=[1, 2])
    preprocessing = AgentPreprocessing(tensor="x", width=32, height=32, layout="NHWC", channels="BGR", dtype="float16")
    decision = Decision(0.5, calibration=LogisticCalibration(-2.0, 1.0, 4.0))
    return _manifest(outputs, preprocessing, decision, task="classification", labels=[])


class Mutator:
    """Draws manifests that differ from a good one."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance
        self._good = [(content, list(_places(json.loads(content), ()))) for content in good_manifests()]

    def mutant(self) -> bytes:
        if self._random.randrange(RARELY) == 0:
            return self._random.choice((_many_keys, _many_brackets, _many_files))()
        content, places = self._random.choice(self._good)
        if self._random.random() < 0.3:
            return self._other_bytes(content)
        raw = json.loads(content)
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            self._change(raw, self._random.choice(places))
        return json.dumps(raw).encode()

    def _change(self, raw: Any, place: tuple[Any, ...]) -> None:
        """Changes the value at `place`, unless an earlier change has taken it away."""
        *above, key = place
        container = raw
        for step in above:
            container = _entry(container, step)
        if _entry(container, key) is _NOTHING:
            return
        kind = self._random.randrange(4)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[self._random.choice(TEXTS)] = self._value()
        elif kind == 1:
            container.insert(key, container[key])
        else:
            container[key] = self._value()

    def _value(self) -> Any:
        return self._random.choice(self._random.choice((NUMBERS, FRACTIONS, TEXTS, OTHERS)))

    def _other_bytes(self, content: bytes) -> bytes:
        kinds: tuple[Callable[[bytes], bytes], ...] = (
            lambda it: it[: self._random.randrange(len(it))],
            lambda it: _replaced(it, self._random.randrange(len(it)), bytes([self._random.randrange(256)])),
            lambda it: _replaced(it, self._random.randrange(len(it)), b"[" * self._random.choice((1, 500, DEPTH))),
            lambda it: self._other_number(it, self._random.choice(NO_NUMBERS)),
            lambda it: it.replace(b'"name"', b'"name": "x", "name"', 1),
            lambda it: it.replace(b'"bolts"', b'"\\ud800"', 1),
            lambda it: b"\xef\xbb\xbf" + it,
            lambda it: it.decode().encode("utf-16"),
            lambda it: it + b" " * self._random.randrange(MAX_BYTES) + self._random.choice((b"", b"{}", b"\0")),
        )
        return self._random.choice(kinds)(content)

    def _other_number(self, content: bytes, number: bytes) -> bytes:
        found = self._random.choice(list(re.finditer(rb"(?<=: )-?[0-9.]+", content)))
        return content[: found.start()] + number + content[found.end() :]


_NOTHING = object()


def _entry(container: Any, key: Any) -> Any:
    if isinstance(container, dict):
        return container.get(key, _NOTHING)
    if isinstance(container, list) and isinstance(key, int) and key < len(container):
        return container[key]
    return _NOTHING


def _places(value: Any, above: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from _places(inner, (*above, key))


def _replaced(content: bytes, position: int, by: bytes) -> bytes:
    return content[:position] + by + content[position + 1 :]


def _many_keys() -> bytes:
    """Only the last of them stands there twice."""
    keys = ",".join(f'"{number}":0' for number in range(MAX_BYTES // 10))
    return f'{{{keys},"{MAX_BYTES // 10 - 1}":0}}'.encode()


def _many_brackets() -> bytes:
    return b'{"a":[' * (MAX_BYTES // 6)


def _many_files() -> bytes:
    raw = json.loads(good_manifests()[0])
    raw["files"] *= MAX_BYTES // len(json.dumps(raw["files"]))
    return json.dumps(raw).encode()[:MAX_BYTES]
