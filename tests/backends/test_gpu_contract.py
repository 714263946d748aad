"""What every device has to do, on a real one: it answers as the CPU does.

`make gpu-check` runs this where there is a GPU; elsewhere each device says why it is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from agent.backends.base import DEVICE_NAMES, Backend, BackendSettings, Device, ModelToOpen
from agent.backends.onnx_runtime import OnnxRuntimeBackend
from agent.backends.opening import backend_for
from agent.errors import ModelNotLoaded
from agent.packages.manifest import OnnxModel, PackageFile
from agent.workbench.doctor.trial import run_trial
from tests.support.packages import HEIGHT, WIDTH, darkness_model, first_channel_model, grey

FILE = PackageFile("model.onnx", 1, "0" * 64, OnnxModel())
Open = Callable[..., tuple[Backend, Backend]]


@pytest.fixture(scope="module", params=DEVICE_NAMES)
def device(request: pytest.FixtureRequest) -> Device:
    reason = run_trial(request.param).reason
    if reason:
        pytest.skip(reason)
    found: Device = request.param
    return found


@pytest.fixture
def both(device: Device, tmp_path: Path) -> Open:
    """Opens a model on the device and on the CPU."""

    def opened(model: onnx.ModelProto, **fields: object) -> tuple[Backend, Backend]:
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        known = {"input": "image", "input_shape": (1, HEIGHT, WIDTH, 3), "input_dtype": "uint8"}
        to_open = ModelToOpen(tmp_path / "model.onnx", **{**known, "outputs": ("score", "map"), **fields})  # type: ignore[arg-type]
        _, backend_class = backend_for([FILE], device)
        return backend_class(to_open, BackendSettings(device=device)), OnnxRuntimeBackend(to_open, BackendSettings())

    return opened


def same(on_device: Backend, on_cpu: Backend, name: str, tensor: np.ndarray) -> None:  # type: ignore[type-arg]
    answer, expected = on_device.run({name: tensor}), on_cpu.run({name: tensor})
    for output in ("score", "map"):
        assert answer[output].shape == expected[output].shape
        np.testing.assert_allclose(answer[output], expected[output], atol=0.002)


@pytest.mark.parametrize("value", [0, 51, 255])
def test_an_image_is_answered_as_on_the_cpu(both: Open, value: int) -> None:
    same(*both(darkness_model()), "image", grey(value)[None])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("batch", [1, 2])
def test_tensors_of_every_kind_are_answered_as_on_the_cpu(both: Open, layout: str, dtype: str, batch: int) -> None:
    kind = TensorProto.FLOAT if dtype == "float32" else TensorProto.FLOAT16
    shape = (1, 3, 8, 12) if layout == "NCHW" else (1, 8, 12, 3)
    model = first_channel_model(dtype=kind, layout=layout, batch=batch)
    backends = both(model, input="input", input_shape=shape, input_dtype=dtype)
    assert backends[0].batch == batch
    tensor = np.random.default_rng(0).random((batch, *shape[1:])).astype(dtype)
    same(*backends, "input", tensor)


def test_runs_at_once_do_not_mix_their_answers_up(both: Open) -> None:
    on_device, _ = both(darkness_model())
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda value: on_device.run({"image": grey(value)[None]})["score"][0], range(256)))
    assert found == pytest.approx([1 - value / 255 for value in range(256)], abs=0.002)


def test_an_image_is_neither_kept_nor_changed(both: Open) -> None:
    on_device, _ = both(darkness_model())
    image = grey(51)[None].copy()
    first = on_device.run({"image": image})["score"]
    np.testing.assert_array_equal(image, grey(51)[None])
    on_device.run({"image": grey(255)[None]})
    assert first[0] == pytest.approx(0.8, abs=0.002)


def test_a_file_that_is_no_model_is_refused_without_a_path(device: Device, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model" * 100)
    model = ModelToOpen(tmp_path / "model.onnx", "image", (1, HEIGHT, WIDTH, 3), "uint8", ("score",))
    _, backend_class = backend_for([FILE], device)
    with pytest.raises(ModelNotLoaded) as refusal:
        backend_class(model, BackendSettings(device=device))
    assert str(tmp_path) not in str(refusal.value)
