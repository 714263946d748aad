"""The manifest: one typed, strict, bounded file; a refusal names file, field and value."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import BadManifest
from agent.packages.manifest import MAX_BYTES, Manifest, json_schema, write_manifest
from agent.packages.manifest_reader import read_manifest
from tests.support.packages import make_package

ROOT = Path(__file__).resolve().parents[2]
AGENT = {"done_by": "agent", "tensor": "image", "width": 32, "height": 32}
COVER = {"x": 0.5, "y": 0.5, "width": 0.5, "height": 0.5}
BOXES = {"tensor": "boxes", "layout": "anchors", "labels": ["background", "anomaly"]}
PLATFORM = {"kind": "platform", "os": "LINUX", "architecture": "ARM64"}
REGION = {"x": 10, "y": 10, "width": 20, "height": 20}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return (make_package(tmp_path_factory.mktemp("manifest") / "package") / "manifest.json").read_bytes()


def changed(content, changes):
    """The manifest in `content` with `changes` (place with dots -> value, or `...` to leave the key out)."""
    raw = json.loads(content)
    for place, value in changes.items():
        *folders, last = (int(key) if key.isdigit() else key for key in place.split("."))
        part = raw
        for key in folders:
            part = part[key]
        if value is ...:
            del part[last]
        else:
            part[last] = value
    return json.dumps(raw).encode()


def sentence(content):
    with pytest.raises(BadManifest) as refusal:
        read_manifest(content)
    return str(refusal.value)


# --- each rule, with the sentence that names file, field and value

TYPES = [
    ({"format_version": 2}, "field 'format_version' is 2: this agent reads format version 1."),
    ({"format_version": "1"}, "field 'format_version' is \"1\": this agent reads format version 1."),
    ({"format_version": ...}, "field 'format_version': this agent reads format version 1."),
    ({"format_version": True}, "field 'format_version' is True: expected 'int', got 'bool'."),
    ({"task": ...}, "manifest.json: object missing required field 'task'."),
    ({"task": "detection"}, "field 'task' is \"detection\": invalid enum value 'detection'."),
    ({"surprise": 1}, "manifest.json: object contains unknown field 'surprise'."),
    ({"image.widht": 96}, "field 'image': object contains unknown field 'widht'."),
    ({"image.width": "96"}, "field 'image.width' is \"96\": expected 'int', got 'str'."),
    ({"image.width": 96.5}, "field 'image.width' is 96.5: expected 'int', got 'float'."),
    ({"image.width": True}, "field 'image.width' is True: expected 'int', got 'bool'."),
    ({"image.width": None}, "field 'image.width': expected 'int', got 'null'."),
    ({"image.width": 63}, "field 'image.width' is 63: expected 'int' >= 64."),
    ({"image.height": 4097}, "field 'image.height' is 4097: expected 'int' <= 4096."),
    ({"image": []}, "field 'image': expected 'object', got 'array'."),
    ({"model.name": ""}, "field 'model.name' is \"\": expected 'str' of length >= 1."),
    ({"model.version": "1.0"}, "field 'model.version' is \"1.0\": expected 'str' matching regex"),
    ({"model.version": "1.0.0\n"}, "field 'model.version' is \"1.0.0\\n\": expected 'str' matching regex"),
    ({"model.version": "1.0.\u0663"}, "field 'model.version' is \"1.0.\\u0663\": expected 'str' matching regex"),
    ({"model.training_images": -1}, "field 'model.training_images' is -1: expected 'int' >= 0."),
    ({"preprocessing.done_by": "you"}, "field 'preprocessing.done_by' is \"you\": invalid value 'you'."),
    ({"preprocessing.code": "x"}, "field 'preprocessing': object contains unknown field 'code'."),
    ({"preprocessing": {**AGENT, "layout": "CHW"}}, "field 'preprocessing.layout' is \"CHW\": invalid enum value"),
    ({"preprocessing": {**AGENT, "dtype": "int8"}}, "field 'preprocessing.dtype' is \"int8\": invalid enum value"),
    ({"preprocessing": {**AGENT, "width": 0}}, "field 'preprocessing.width' is 0: expected 'int' >= 1."),
    ({"preprocessing": {**AGENT, "mean": [0.5]}}, "field 'preprocessing.mean': expected 'array' of length >= 3."),
    (
        {"preprocessing": {**AGENT, "resize": "pad"}},
        "field 'preprocessing.resize' is \"pad\": invalid enum value 'pad'.",
    ),
    ({"preprocessing": {**AGENT, "padding": 256}}, "field 'preprocessing.padding' is 256: expected 'int' <= 255."),
    ({"preprocessing": {**AGENT, "antialias": 0}}, "field 'preprocessing.antialias' is 0: expected 'bool', got 'int'."),
    ({"outputs.boxes": {**BOXES, "layout": "xywh"}}, "field 'outputs.boxes.layout' is \"xywh\": invalid enum value"),
    ({"outputs.boxes": {**BOXES, "labels": []}}, "field 'outputs.boxes.labels': expected 'array' of length >= 1."),
    ({"outputs.map_covers": {**COVER, "width": 0}}, "field 'outputs.map_covers.width' is 0: expected 'float' > 0.0."),
    ({"outputs.map_covers": {**COVER, "x": -0.1}}, "field 'outputs.map_covers.x' is -0.1: expected 'float' >= 0.0."),
    ({"outputs.mask_score": "sum"}, "field 'outputs.mask_score' is \"sum\": invalid enum value 'sum'."),
    ({"target": {"kind": "device", "name": "toaster"}}, "field 'target.name' is \"toaster\": invalid enum value"),
    ({"target": {**PLATFORM, "architecture": "X86"}}, "field 'target.architecture' is \"X86\": invalid enum value"),
    (
        {"target": {**PLATFORM, "compiler_options": {"speed": "max"}}},
        "field 'target.compiler_options': invalid enum value 'speed'.",
    ),
    ({"decision.threshold": 1.5}, "field 'decision.threshold' is 1.5: expected 'float' <= 1.0."),
    ({"decision.threshold": 10**400}, "field 'decision.threshold' is 1000"),
    ({"decision.combination": "xor"}, "field 'decision.combination' is \"xor\": invalid enum value 'xor'."),
    (
        {"decision.calibration": {"kind": "linear", "center": 1, "range": 0}},
        "field 'decision.calibration.range' is 0: expected 'float' > 0.0.",
    ),
    ({"labels.1.color": "#23a436"}, "field 'labels[1].color' is \"#23a436\": expected 'str' matching regex"),
    ({"labels": [{"name": "background"}] * 101}, "field 'labels': expected 'array' of length <= 100."),
    ({"files": []}, "field 'files': expected 'array' of length >= 1."),
    ({"files.0.sha256": "AB" * 32}, f"field 'files[0].sha256' is \"{'AB' * 32}\": expected 'str' matching regex"),
    ({"files.0.size": -1}, "field 'files[0].size' is -1: expected 'int' >= 0."),
    ({"files.0.runtime": {"kind": "pickle"}}, "field 'files[0].runtime.kind' is \"pickle\": invalid value 'pickle'."),
    ({"self_test": []}, "field 'self_test': expected 'array' of length >= 1."),
    ({"self_test.0.tolerance": {"bf16": 0.1}}, "field 'self_test[0].tolerance': invalid enum value 'bf16'."),
    ({"self_test.0.areas": {"background": 7}}, "field 'self_test[0].areas[...]': expected 'float' <= 1.0."),
    ({"reference.score_quantiles": {"0.5": "x"}}, "field 'reference.score_quantiles[...]': expected 'float'"),
]

AGREEMENT = [
    ({"files.0.runtime": None}, "field 'files': no file has a 'runtime'"),
    (
        {"outputs": {}},
        "field 'outputs': name at least one of score, class_scores, anomaly_map, class_mask and boxes.",
    ),
    ({"outputs.class_mask": "mask"}, "field 'outputs.class_mask' is \"mask\": anomaly_map is named too"),
    ({"outputs.class_scores": "classes"}, "field 'outputs.normal_class_ids': class_scores needs to know"),
    ({"outputs.anomaly_map": None}, "field 'outputs': segmentation needs an anomaly_map, a class_mask or boxes."),
    ({"outputs.mask_labels": ["dent"]}, "field 'outputs.mask_labels[0]' is \"dent\": no label has this name."),
    ({"outputs.boxes": BOXES}, "field 'outputs.boxes': anomaly_map or class_mask is named too; one of the three makes"),
    (
        {"outputs": {"class_mask": "mask", "boxes": BOXES}},
        "field 'outputs.boxes': anomaly_map or class_mask is named too",
    ),
    (
        {"outputs": {"boxes": {**BOXES, "labels": ["background", "background"]}}},
        "field 'outputs.boxes.labels': none of the classes is an anomaly type.",
    ),
    (
        {"outputs": {"boxes": {**BOXES, "labels": ["anomaly", "dent"]}}},
        "field 'outputs.boxes.labels[1]' is \"dent\": no label has this name.",
    ),
    (
        {"outputs": {"class_mask": "mask", "mask_bias": [0.5]}},
        "field 'outputs.mask_bias': it needs 2 numbers, one per channel.",
    ),
    (
        {"outputs": {"class_mask": "m", "mask_labels": ["anomaly"] * 3, "mask_bias": [0, 0]}},
        "field 'outputs.mask_bias': it needs 3 numbers, one per channel.",
    ),
    ({"outputs.map_covers": {**COVER, "x": 0.6}}, "field 'outputs.map_covers': it reaches outside the tensor's plane."),
    ({"outputs.map_covers": {**COVER, "y": 0.6}}, "field 'outputs.map_covers': it reaches outside the tensor's plane."),
    ({"labels.0.name": "good"}, "field 'labels': segmentation needs 'background' first"),
    ({"labels": [{"name": "background"}]}, "field 'labels': segmentation needs 'background' first"),
    ({"labels.1.name": "background"}, "field 'labels': two labels have the same name."),
    ({"labels.0.color": "#000000"}, "field 'labels[0].color' is \"#000000\": background is #FFFFFF, always."),
    ({"labels.1.color": "#FFFFFF"}, "field 'labels[1].color' is \"#FFFFFF\": another label has this colour"),
    (
        {"labels": [{"name": "background"}, {"name": "dent", "color": "#14A3B3"}, {"name": "crack"}]},
        "field 'labels[2].color' is \"#14A3B3\": another label has this colour (default ones count).",
    ),
    (
        {"outputs": {"class_mask": "mask", "mask_labels": ["background"]}},
        "field 'outputs.class_mask' is \"mask\": none of its channels paints an anomaly type.",
    ),
    (
        {"task": "classification", "labels": [], "decision.combination": "mask", "self_test.0.areas": {}},
        "field 'decision.combination' is \"mask\": only segmentation has a mask.",
    ),
    ({"preprocessing": {**AGENT, "std": [1, 0, 1]}}, "field 'preprocessing.std' is \"[1.0, 0.0, 1.0]\": every value"),
    ({"preprocessing": {**AGENT, "dtype": "uint8", "scale": 1}}, "field 'preprocessing.dtype' is \"uint8\": uint8 pix"),
    (
        {"preprocessing": {**AGENT, "antialias": False, "interpolation": "lanczos"}},
        "field 'preprocessing.antialias' is False: only bilinear and bicubic can do without.",
    ),
    (
        {"preprocessing": {**AGENT, "shorter_side": 40}},
        "field 'preprocessing.shorter_side' is 40: it is for 'resize' crop only.",
    ),
    (
        {"preprocessing": {**AGENT, "resize": "letterbox", "shorter_side": 40}},
        "field 'preprocessing.shorter_side' is 40: it is for 'resize' crop only.",
    ),
    (
        {"preprocessing": {**AGENT, "resize": "crop", "shorter_side": 31}},
        "field 'preprocessing.shorter_side' is 31: it must cover the tensor's width and height.",
    ),
    (
        {"preprocessing": {**AGENT, "height": 40, "resize": "crop", "shorter_side": 36}},
        "field 'preprocessing.shorter_side' is 36: it must cover the tensor's width and height.",
    ),
    (
        {"preprocessing.region_of_interest": REGION, "image.any_size": True},
        "field 'image.any_size' is True: a region of interest or an ignore mask needs images of one size.",
    ),
    ({"preprocessing.region_of_interest": {**REGION, "x": 77}}, "'preprocessing.region_of_interest': it reaches out"),
    ({"preprocessing.region_of_interest": {**REGION, "y": 45}}, "'preprocessing.region_of_interest': it reaches out"),
    ({"preprocessing.ignore_mask": "m.raw"}, "field 'preprocessing.ignore_mask' is \"m.raw\": the file is not listed"),
    ({"preprocessing.ignore_mask": "model.onnx"}, "'preprocessing.ignore_mask' is \"model.onnx\": it is listed with"),
    (
        {"self_test.0.path": "other.rgb"},
        "field 'self_test[0].path' is \"other.rgb\": the file is not listed in 'files'",
    ),
    ({"files.1.size": 7}, "field 'self_test[0].path' is \"self-test/good.rgb\": it is listed with 7 bytes, not 18432."),
    (
        {"self_test.0.width": 64, "self_test.0.height": 96},
        "field 'self_test[0].width' is 64: images must be 96 x 64.",
    ),
    ({"self_test.0.areas": {"dent": 0.5}}, "field 'self_test[0].areas' is \"dent\": no label has this name."),
]


@pytest.mark.parametrize(("changes", "expected"), TYPES + AGREEMENT)
def test_a_broken_rule_is_refused_with_file_field_and_value(content, changes, expected):
    said = sentence(changed(content, changes))
    assert said.startswith("manifest.json")
    assert expected in said


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../model.onnx",
        "a/../model.onnx",
        "a/..",
        "./model.onnx",
        "a//model.onnx",
        "a/",
        ".",
        "..",
        "https://example.com/model.onnx",
        "C:model.onnx",
        "a\\model.onnx",
        "model.onnx\0.txt",
        "model\n.onnx",
    ],
)
def test_a_path_that_is_not_plain_and_inside_the_package_is_refused(content, path):
    said = sentence(changed(content, {"files.0.path": path}))
    assert said.startswith("manifest.json: field 'files[0].path' is \"")
    assert said.endswith("paths are relative, inside the package, with '/' between plain names.")


@pytest.mark.parametrize("again", ["model.onnx", "MODEL.onnx", "Model.ONNX"])
def test_a_file_listed_twice_is_refused_whatever_its_case(content, again):
    said = sentence(changed(content, {"files.1.path": again}))
    assert said == f"manifest.json: field 'files[1].path' is \"{again}\": the file is listed twice."


def test_ignore_mask_and_region_of_interest_that_fit_are_read(content):
    files = json.loads(content)["files"]
    files.append({"path": "ignore.raw", "size": 96 * 64, "sha256": "0" * 64})
    manifest = read_manifest(
        changed(
            content,
            {
                "files": files,
                "preprocessing": {**AGENT, "region_of_interest": {**REGION, "x": 76}, "ignore_mask": "ignore.raw"},
            },
        )
    )
    assert manifest.preprocessing.region_of_interest.x == 76
    assert manifest.preprocessing.ignore_mask == "ignore.raw"


def holds(written, wanted):
    """Whether every value in `wanted` stands in `written` too."""
    if isinstance(wanted, dict):
        return all(holds(written[key], value) for key, value in wanted.items())
    return written == wanted


@pytest.mark.parametrize(
    "changes",
    [
        {
            "preprocessing": {
                **AGENT,
                "antialias": False,
                "interpolation": "bicubic",
                "resize": "letterbox",
                "padding": 0,
            }
        },
        {"preprocessing": {**AGENT, "resize": "crop", "shorter_side": 32}},
        {"preprocessing": {**AGENT, "resize": "crop"}},
        {"outputs": {"boxes": {**BOXES, "prototypes": "prototypes"}}},
        {"outputs": {"class_mask": "mask", "mask_bias": [0, -0.5], "mask_score": "mean", "map_covers": COVER}},
        {"target": {"kind": "device", "name": "jetson_orin"}},
        {"target": {**PLATFORM, "accelerator": "NVIDIA", "compiler_options": {"trt-ver": "10.3", "cuda-ver": "12.6"}}},
    ],
)
def test_parts_that_agree_are_read_and_written_back_the_same(content, changes):
    manifest = read_manifest(changed(content, changes))
    written = json.loads(write_manifest(manifest))
    for place, value in changes.items():
        assert holds(written[place], value)
    assert read_manifest(write_manifest(manifest)) == manifest


def test_boxes_of_a_classification_need_no_labels(content):
    changes = {"task": "classification", "labels": [], "self_test.0.areas": {}, "outputs": {"boxes": BOXES}}
    assert read_manifest(changed(content, changes)).outputs.boxes.labels == ["background", "anomaly"]


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"boxes": BOXES}, ("boxes",)),
        ({"boxes": {**BOXES, "prototypes": "prototypes"}}, ("boxes", "prototypes")),
        ({"score": "boxes", "boxes": BOXES}, ("boxes",)),
    ],
)
def test_boxes_and_prototypes_are_read_from_the_graph(content, outputs, expected):
    assert read_manifest(changed(content, {"outputs": outputs})).outputs.tensors == expected


# --- strictness of the JSON


def replaced(content, old, new):
    assert old in content
    return content.replace(old, new, 1)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999"])
def test_numbers_that_are_not_finite_are_refused(content, number):
    said = sentence(replaced(content, b'"threshold": 0.5', b'"threshold": ' + number))
    assert said == f'manifest.json holds "{number.decode()}": numbers must be finite.'


@pytest.mark.parametrize("digits", [30, 4000, 5000, 900_000])
def test_huge_integers_are_refused(content, digits):
    assert "manifest.json" in sentence(replaced(content, b'"width": 96', b'"width": ' + b"9" * digits))


def test_a_key_that_stands_there_twice_is_refused_at_every_depth(content):
    expected = 'manifest.json holds "width": the key stands there twice.'
    assert sentence(replaced(content, b'"width": 96', b'"width": 96, "width": 96')) == expected
    assert sentence(b'{"a": [{"width": 1, "width": 1}]}') == expected


@pytest.mark.parametrize("place", ["files.0.size", "model.training_images", "outputs.normal_class_ids"])
def test_counts_beyond_what_the_system_can_say_are_refused(content, place):
    value = [10**30] if place.endswith("ids") else 10**30
    assert "expected 'int' <= 9223372036854775807" in sentence(changed(content, {place: value}))


def test_among_very_many_keys_the_one_that_stands_there_twice_is_named():
    """A test of each against all others would take minutes."""
    keys = ",".join(f'"{number}":0' for number in range(100_000))
    assert sentence(f'{{{keys},"99999":1}}'.encode()).endswith('holds "99999": the key stands there twice.')


@pytest.mark.parametrize("key", ["x - at `\n\nforged`", "x - at `$.\nforged`", "x - at `$." + "y" * 10_000 + "`"])
def test_a_key_that_looks_like_the_end_of_a_message_stays_in_one_short_line(content, key):
    refusal = sentence(json.dumps({**json.loads(content), key: 1}).encode())
    assert refusal.isprintable() and len(refusal) < 300
    assert "object contains unknown field" in refusal


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 50_000 + b"]" * 50_000])
def test_deep_nesting_is_refused(deep):
    assert sentence(deep) == "manifest.json: it is nested too deeply."


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "manifest.json: no JSON at line 1, column 1: Expecting value."),
        (b"{", "manifest.json: no JSON at line 1, column 2: "),
        (b'{"a": 1,}', "manifest.json: no JSON at line 1, column "),
        (b"{} {}", "manifest.json: no JSON at line 1, column 4: Extra data."),
        (b"null", "manifest.json: expected 'object', got 'null'."),
        (b"[]", "manifest.json: expected 'object', got 'array'."),
        (b"\xef\xbb\xbf{}", "manifest.json: no JSON at line 1, column 1: Unexpected UTF-8 BOM"),
        ("{}".encode("utf-16-le"), "manifest.json: no JSON at line 1, column 2: "),
        (b'{"a": "\xff"}', "manifest.json: byte 7 is not UTF-8."),
        (b'{"a": "\\ud800"}', "manifest.json: an escape stands for half a character (a lone surrogate)."),
    ],
)
def test_what_is_no_strict_utf8_json_object_is_refused(content, expected):
    assert expected in sentence(content)


def test_more_than_a_mebibyte_is_refused_and_a_mebibyte_is_read(content):
    read_manifest(content + b" " * (MAX_BYTES - len(content)))
    said = sentence(content + b" " * (MAX_BYTES + 1 - len(content)))
    assert said == f"manifest.json: it holds {MAX_BYTES + 1} bytes; at most {MAX_BYTES} are read."


# --- whatever a manifest holds, it is read or refused

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, 10**400, -1])
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)  # surrogates too
    | st.sampled_from(["x\ny", "../x", "background", "anomaly", "model.onnx", "mask", "onnx", "agent", "x" * 3000])
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def places(value):
    """Every container in `value` with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


SEEDS = {
    "preprocessing": [
        {**AGENT, "mean": [0.1, 0.2, 0.3]},
        {**AGENT, "resize": "letterbox", "padding": 0, "antialias": False},
        {**AGENT, "resize": "crop", "shorter_side": 36},
    ],
    "outputs": [
        {"boxes": {**BOXES, "prototypes": "prototypes"}},
        {"class_mask": "mask", "mask_bias": [0.0, 0.5], "mask_score": "mean", "map_covers": COVER},
    ],
    "target": [PLATFORM, {"kind": "device", "name": "arm_cpu"}],
}


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_a_mutated_manifest_is_read_or_refused_in_one_line_and_nothing_else(content, data):
    raw = json.loads(content)
    for key, seeds in SEEDS.items():
        raw[key] = copy.deepcopy(data.draw(st.sampled_from([raw[key], *seeds])))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(list(places(raw))))
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "replace":
            container[key] = data.draw(anything)
        elif change == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[data.draw(st.text(max_size=300))] = data.draw(anything)
        else:
            container.append(data.draw(anything))
    try:
        manifest = read_manifest(json.dumps(raw).encode())
    except BadManifest as refusal:
        said = str(refusal)
        assert said.startswith("manifest.json")
        assert said.isprintable()
        assert len(said) < 600
    else:
        assert read_manifest(write_manifest(manifest)) == manifest


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_manifest_with_damaged_bytes_is_read_or_refused_and_nothing_else(content, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(damaged) - 1))
        damaged[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        assert isinstance(read_manifest(bytes(damaged)), Manifest)
    except BadManifest as refusal:
        assert str(refusal).isprintable()


# --- writing and the schema


def test_what_is_written_is_read_back_the_same(content):
    manifest = read_manifest(content)
    assert read_manifest(write_manifest(manifest)) == manifest
    assert write_manifest(manifest) == content


def test_the_committed_json_schema_is_fresh():
    committed = json.loads((ROOT / "docs" / "model-package.schema.json").read_text())
    assert committed == json_schema(), "run `python docs/generate.py`"
