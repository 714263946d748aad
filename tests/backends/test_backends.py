"""One contract for every backend: opened means loaded and warmed up, and a sentence says why not."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from agent.backends import opening
from agent.backends.base import BackendSettings, ModelToOpen
from agent.backends.onnx_runtime import OnnxRuntimeBackend
from agent.backends.opening import BACKENDS, RUNTIME_OF, backend_for
from agent.backends.tensorrt import TensorRtBackend
from agent.errors import BadPackage, ModelDoesNotFit, ModelNotLoaded, NoRuntimeForPackage
from agent.packages.manifest import OnnxModel, PackageFile, TensorRtEngine
from tests.support.packages import HEIGHT, WIDTH, darkness_model, first_channel_model, grey

BACKEND_CLASSES = [OnnxRuntimeBackend, TensorRtBackend]
SHAPE = (1, HEIGHT, WIDTH, 3)


DEVICES = {OnnxRuntimeBackend: "CPU", TensorRtBackend: "Fake GPU"}


@pytest.fixture(params=BACKEND_CLASSES, ids=lambda backend: backend.__name__)
def backend(request):
    """TensorRT's is a fake on a fake GPU; `make gpu-check` puts a real one through the same."""
    if request.param is TensorRtBackend:
        request.getfixturevalue("fake_tensorrt")
    return request.param


@pytest.fixture
def write(tmp_path):
    """Writes a model and gives what a backend needs to know of it."""

    def written(model=None, *, path="a b/model.onnx", **fields):
        content = (darkness_model() if model is None else model).SerializeToString()
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
        known = {"input": "image", "input_shape": SHAPE, "input_dtype": "uint8", "outputs": ("score", "map"), **fields}
        return ModelToOpen(path=tmp_path / path, **known)

    return written


def refused(backend, model, kind):
    with pytest.raises(kind) as refusal:
        backend(model, BackendSettings())
    said = str(refusal.value)
    assert str(model.path.parent) not in said
    assert str(model.path.parents[1]) not in said
    assert "\n" not in said
    return said


# --- open


def test_an_open_backend_says_what_it_is_and_answers(backend, write):
    opened = backend(write(), BackendSettings())
    assert opened.runtime.split()[-1][0].isdigit()
    assert (opened.device, opened.batch) == (DEVICES[backend], 1)
    assert (opened.precision, opened.lowered_to) == (("fp16", "fp16") if backend is TensorRtBackend else ("fp32", ""))
    answer = opened.run({"image": grey(51)[None]})
    assert list(answer) == ["score", "map"]
    assert answer["score"].tolist() == pytest.approx([0.8])
    assert answer["map"].shape == (1, 1, HEIGHT, WIDTH)
    assert answer["map"].dtype == np.float32
    assert answer["map"].flags.c_contiguous


def test_only_the_outputs_that_are_wanted_come_back(backend, write):
    opened = backend(write(outputs=("map",)), BackendSettings())
    assert list(opened.run({"image": grey(0)[None]})) == ["map"]


def test_opening_warms_the_model_up_with_the_shape_that_will_go_in(backend, write, monkeypatch):
    shapes = []
    run = backend.run
    monkeypatch.setattr(backend, "run", lambda self, inputs: shapes.append(inputs["image"].shape) or run(self, inputs))
    backend(write(), BackendSettings())
    assert shapes == [SHAPE]


def test_a_model_that_fails_when_it_runs_is_not_opened(backend, write):
    model = darkness_model()
    model.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(np.array([7], np.int64), "channels"))  # no axis 7
    said = refused(backend, write(model), ModelNotLoaded)
    assert "could not load the model" in said


def test_half_precision_is_told(backend, write):
    model = first_channel_model(dtype=TensorProto.FLOAT16)
    opened = backend(write(model, input="input", input_shape=(1, 3, 8, 12), input_dtype="float16"), BackendSettings())
    assert opened.precision == "fp16"
    assert opened.run({"input": np.full((1, 3, 8, 12), 0.25, np.float16)})["score"].tolist() == [0.25]


@pytest.mark.parametrize(("batch", "expected"), [("N", 1), (1, 1), (2, 2)])
def test_the_batch_is_what_is_fixed_in_the_graph(backend, write, batch, expected):
    model = write(first_channel_model(batch=batch), input="input", input_shape=(1, 3, 8, 12), input_dtype="float32")
    assert backend(model, BackendSettings()).batch == expected


# --- models that do not fit


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"input": "pixels"}, "it takes 'image'; the manifest feeds 'pixels'."),
        ({"input_dtype": "float32"}, "'image' is uint8; the manifest gives float32."),
        ({"input_shape": (1, 3, HEIGHT, WIDTH)}, f"; the manifest gives (1, 3, {HEIGHT}, {WIDTH})."),
        ({"input_shape": (1, HEIGHT, WIDTH)}, f"; the manifest gives (1, {HEIGHT}, {WIDTH})."),
        ({"outputs": ("score", "heat")}, "it gives 'map', 'score'; the manifest reads 'heat'."),
    ],
)
def test_a_model_that_does_not_fit_its_manifest_is_refused_when_it_is_opened(backend, write, fields, expected):
    said = refused(backend, write(**fields), ModelDoesNotFit)
    assert said.startswith("The model does not fit its manifest: ")
    assert expected in said


def test_a_fixed_size_other_than_the_manifests_is_refused(backend, write):
    model = write(first_channel_model(), input="input", input_shape=(1, 3, 8, 13), input_dtype="float32")
    said = refused(backend, model, ModelDoesNotFit)
    assert said.endswith("'input' has the shape [1, 3, 8, 12]; the manifest gives (1, 3, 8, 13).")


def test_a_model_of_two_inputs_is_refused(backend, write):
    model = darkness_model()
    model.graph.input.append(onnx.helper.make_tensor_value_info("second", TensorProto.FLOAT, [1]))
    said = refused(backend, write(model), ModelDoesNotFit)
    assert "it takes 'image', 'second'; the manifest feeds 'image'." in said


def test_names_of_a_graph_are_told_in_one_line_that_can_be_read_and_not_without_end(backend, write):
    model = darkness_model()
    for number in range(5000):
        name = f"{number}\n\x1b[2J"
        model.graph.node.append(onnx.helper.make_node("Identity", ["score"], [name]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]))
    said = refused(backend, write(model, outputs=("heat",)), ModelDoesNotFit)
    assert said.isprintable()
    assert said.endswith(" and 4992 more; the manifest reads 'heat'.")


def test_a_name_that_is_not_utf_8_is_refused(write):
    """TensorRT does not ask for this one."""
    model = write()
    content = model.path.read_bytes()
    assert content.count(b"\x12\x01W") == 2  # the image's width and the map's, a free dimension's name
    model.path.write_bytes(content.replace(b"\x12\x01W", b"\x12\x01\xbc"))
    assert refused(OnnxRuntimeBackend, model, ModelNotLoaded).endswith(
        "could not load the model: a name in the graph is not UTF-8"
    )


def as_text(model):
    model.graph.node.append(onnx.helper.make_node("Cast", ["score"], ["answer"], to=TensorProto.STRING))
    return onnx.helper.make_tensor_value_info("answer", TensorProto.STRING, [1])


def as_sequence(model):
    model.graph.node.append(onnx.helper.make_node("SequenceConstruct", ["score"], ["answer"]))
    return onnx.helper.make_tensor_sequence_value_info("answer", TensorProto.FLOAT, [1])


def as_bits_of_a_small_float(model):
    model.graph.node.append(onnx.helper.make_node("Cast", ["score"], ["bits"], to=TensorProto.FLOAT8E4M3FN))
    model.graph.node.append(onnx.helper.make_node("Identity", ["bits"], ["answer"]))
    return onnx.helper.make_tensor_value_info("answer", TensorProto.FLOAT8E4M3FN, [1])


@pytest.mark.parametrize("kind", [as_text, as_sequence, as_bits_of_a_small_float])
def test_a_model_whose_output_is_no_tensor_of_numbers_is_refused(backend, write, kind):
    model = darkness_model()
    model.opset_import[0].version = 19  # the first with 8-bit floats
    model.graph.output.append(kind(model))
    if backend is TensorRtBackend and kind in (as_text, as_sequence):
        assert "it cannot read it" in refused(backend, write(model, outputs=("answer",)), ModelNotLoaded)
    else:
        said = refused(backend, write(model, outputs=("answer",)), ModelDoesNotFit)
        assert said.endswith("; a tensor of numbers can be read.")


# --- files that are no models

GARBAGE = {
    "empty": b"",
    "text": b"not a model" * 100,
    "zeros": bytes(1000),
    "half a model": darkness_model().SerializeToString()[:200],
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins\x94.",
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("through_link", [False, True])
def test_a_file_that_is_no_model_is_refused_without_a_path(backend, write, tmp_path, garbage, through_link):
    model = write()
    model.path.write_bytes(GARBAGE[garbage])
    if through_link:
        (tmp_path / "link").symlink_to(model.path.parent)
        model = ModelToOpen(tmp_path / "link" / "model.onnx", "image", SHAPE, "uint8", ("score",))
    said = refused(backend, model, ModelNotLoaded)
    assert "could not load the model" in said
    assert str(tmp_path) not in said


def test_a_file_in_onnx_runtimes_own_format_is_refused_whatever_its_name(write, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "saved")
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 3  # it warns that this is for this machine only
    onnxruntime.InferenceSession(str(write().path), options, providers=["CPUExecutionProvider"])
    (tmp_path / "own format").mkdir()
    model = write(path="own format/model.ort")
    model.path.write_bytes((tmp_path / "saved").read_bytes())
    assert "it is no ONNX model" in refused(OnnxRuntimeBackend, model, ModelNotLoaded)


def with_external_data(location):
    """The darkness model, its constant 255 in the file `location`."""
    model = darkness_model()
    (white,) = (tensor for tensor in model.graph.initializer if tensor.name == "white")
    white.ClearField("raw_data")
    white.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        white.external_data.add(key=key, value=value)
    return model


def test_external_data_beside_the_model_are_read(backend, write, tmp_path):
    model = write(with_external_data("weights"))
    model.path.with_name("weights").write_bytes(np.float32(255).tobytes())
    assert backend(model, BackendSettings()).run({"image": grey(51)[None]})["score"].tolist() == pytest.approx([0.8])


@pytest.mark.parametrize(
    "location", ["../secret", "x/../../secret", "{root}/secret", "link", "/dev/zero", "missing", "*/_ORT_MEM_ADDR_/*"]
)
@pytest.mark.parametrize("through_link", [False, True])
def test_external_data_outside_the_package_are_refused_and_their_place_is_not_told(
    backend, write, tmp_path, location, through_link
):
    (tmp_path / "secret").write_bytes(np.float32(255).tobytes())
    model = write(with_external_data(location.format(root=tmp_path)), path="package/model.onnx")
    model.path.with_name("link").symlink_to(tmp_path / "secret")
    if through_link:
        (tmp_path / "entry").symlink_to("package")
        model = ModelToOpen(tmp_path / "entry" / "model.onnx", "image", SHAPE, "uint8", ("score",))
    said = refused(backend, model, ModelNotLoaded)
    assert str(tmp_path) not in said
    assert str(tmp_path.parent) not in said


# --- running


def test_runs_at_once_do_not_mix_their_answers_up(backend, write):
    opened = backend(write(outputs=("score",)), BackendSettings(threads=2))
    wrong = []
    begin = threading.Barrier(8)

    def ask(seed):
        values = np.random.default_rng(seed).integers(0, 256, 40)
        begin.wait()
        for value in values:
            answer = opened.run({"image": grey(value)[None]})["score"]
            if abs(answer[0] - (1 - value / 255)) > 1e-5:
                wrong.append((value, answer))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_inputs_are_neither_changed_nor_kept(backend, write):
    opened = backend(write(), BackendSettings())
    image = grey(51)[None].copy()
    first = opened.run({"image": image})
    np.testing.assert_array_equal(image, grey(51)[None])
    image[:] = 255
    assert opened.run({"image": image})["score"][0] == 0
    assert first["score"][0] == pytest.approx(0.8)


# --- ONNX Runtime


@pytest.mark.parametrize("threads", [1, 2])
def test_onnx_runtime_takes_the_threads_it_is_given_and_lets_them_sleep(write, threads):
    gc.collect()  # sessions of other tests end their threads now, not between the two counts
    before = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - a count of names
    opened = OnnxRuntimeBackend(write(), BackendSettings(threads=threads))
    assert len(os.listdir("/proc/self/task")) - before == threads - 1  # noqa: PTH208
    options = opened._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.load_model_format") == "ONNX"


def test_onnx_runtime_does_not_fall_back_to_another_provider(write):
    opened = OnnxRuntimeBackend(write(), BackendSettings())
    assert opened._session.get_providers() == ["CPUExecutionProvider"]
    assert opened._session._enable_fallback is False


def test_any_size_needs_a_graph_that_takes_any_size(write):
    free = darkness_model()
    OnnxRuntimeBackend(write(free, any_size=True), BackendSettings())
    fixed = darkness_model()
    fixed.graph.input[0].type.tensor_type.shape.dim[1].dim_value = HEIGHT
    said = refused(OnnxRuntimeBackend, write(fixed, any_size=True), ModelDoesNotFit)
    assert said.endswith("the manifest promises images of any size.")


# --- which backend opens what

ONNX = PackageFile("model.onnx", 1, "0" * 64, OnnxModel())
ENGINE = PackageFile("model.engine", 1, "0" * 64, TensorRtEngine("8.7", "10.3.0", "fp16"))
IMAGE = PackageFile("good.rgb", 1, "0" * 64)


def test_the_onnx_model_is_chosen_wherever_it_is_listed():
    assert backend_for([IMAGE, ENGINE, ONNX], "cpu") == (ONNX, OnnxRuntimeBackend)


def test_a_package_of_engines_only_has_no_runtime_here():
    with pytest.raises(NoRuntimeForPackage) as refusal:
        backend_for([IMAGE, ENGINE], "cpu")
    assert str(refusal.value) == (
        "No model file of this package can run here: it holds TensorRT engines only, and this agent runs ONNX models; "
        "package the ONNX model too."
    )


def test_a_runtime_that_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "agent.backends.onnx_runtime")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NoRuntimeForPackage) as refusal:
        backend_for([ONNX], "cpu")
    assert "onnxruntime is not installed; install one runtime: pip install 'vision-edge-agent[cpu]'" in str(
        refusal.value
    )


def test_every_backend_of_the_table_is_under_the_contract():
    assert set(RUNTIME_OF.values()) == set(BACKENDS)
    assert {opening._load(device) for device in RUNTIME_OF} == set(BACKEND_CLASSES)


def test_refusals_of_backends_are_refusals_of_packages():
    assert all(issubclass(kind, BadPackage) for kind in (ModelDoesNotFit, ModelNotLoaded, NoRuntimeForPackage))


def test_nothing_is_written_or_told_about_its_use(tmp_path):
    """ONNX Runtime has telemetry, on by default: it keeps an id and a database in the user's cache."""
    code = "import agent.backends.onnx_runtime"
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=tmp_path)
    assert list(tmp_path.rglob("*")) == []
