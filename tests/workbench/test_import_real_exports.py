"""Networks of torchvision, timm and Ultralytics, random but exported as users do, against their own answers."""

import argparse

import numpy as np
import pytest
from PIL import Image

from agent.commands.package import common, onnx_graph, ultralytics
from tests.support.graphs import answer, picture

pytestmark = [
    pytest.mark.slow,
    # Exporters and their libraries deprecate each other's interfaces with every version.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(300),
]
WIDTH, HEIGHT = 240, 180
SEED = 3


def draft(command, *words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    common.add_arguments(parser)
    return command.draft(parser.parse_args([*map(str, words), "--component", "part"]))


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    return torch


@pytest.fixture(scope="module")
def torchvision(torch):
    return pytest.importorskip("torchvision", reason="torchvision is not installed here")


def exported(torch, network, file, shape, outputs=("output",)):
    network.eval()
    torch.onnx.export(
        network, (torch.zeros(shape),), file, input_names=["input"], output_names=list(outputs), dynamo=False
    )
    return file


def prepared(torchvision, pixels, *steps):
    """(1, 3, h, w), as torchvision's presets make it."""
    transforms = torchvision.transforms
    compose = [*steps, transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    return transforms.Compose(compose)(Image.fromarray(pixels))[None]


def test_torchvisions_classifier_with_its_preset(torch, torchvision, tmp_path):
    network = torchvision.models.resnet18(num_classes=3)
    file = exported(torch, network, tmp_path / "net.onnx", (1, 3, 112, 112))
    made = draft(onnx_graph, file, "--normal", 2, "--resize", "crop", "--shorter-side", 128)
    pixels = picture(SEED, WIDTH, HEIGHT)
    crop = (torchvision.transforms.Resize(128), torchvision.transforms.CenterCrop(112))
    with torch.no_grad():
        probabilities = network(prepared(torchvision, pixels, *crop)).softmax(1)[0]
    assert answer(made, pixels, tmp_path).score == pytest.approx(1 - float(probabilities[2]), abs=1e-4)


def test_torchvisions_segmentation_net(torch, torchvision, tmp_path):
    network = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3, aux_loss=True
    )
    file = exported(torch, network, tmp_path / "net.onnx", (1, 3, HEIGHT, WIDTH), ("out", "aux"))
    made = draft(onnx_graph, file, "--classes", "background,dent,hole")
    assert made.outputs.class_mask == "out"
    pixels = picture(SEED, WIDTH, HEIGHT)
    with torch.no_grad():
        logits = network(prepared(torchvision, pixels))["out"][0]
    detection = answer(made, pixels, tmp_path)
    assert detection.score == pytest.approx(float(logits.softmax(0)[1:].sum(0).max()), abs=1e-4)
    areas = {region.name: region.area for region in detection.regions}
    chosen = logits.argmax(0).numpy()
    assert areas.get("dent", 0) == pytest.approx((chosen == 1).mean(), abs=1e-3)
    assert areas.get("hole", 0) == pytest.approx((chosen == 2).mean(), abs=1e-3)


def test_timms_classifier_with_one_logit(torch, torchvision, tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed here")
    network = timm.create_model("mobilenetv3_small_050", num_classes=1)
    file = exported(torch, network, tmp_path / "net.onnx", (1, 3, 96, 96))
    made = draft(onnx_graph, file, "--interpolation", "bicubic", "--activation", "sigmoid")
    pixels = picture(SEED, WIDTH, HEIGHT)
    bicubic = torchvision.transforms.Resize((96, 96), torchvision.transforms.InterpolationMode.BICUBIC)
    with torch.no_grad():
        expected = network(prepared(torchvision, pixels, bicubic)).sigmoid().item()
    assert answer(made, pixels, tmp_path).score == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def yolo(torch, tmp_path_factory):
    """Exports a network and gives its file."""
    library = pytest.importorskip("ultralytics", reason="Ultralytics is not installed here")
    folder = tmp_path_factory.mktemp("yolo")

    def export(name, **settings):
        torch.manual_seed(SEED)
        network = library.YOLO(f"{name}.yaml")
        head = network.model.model[-1]
        for parameter, values in head.named_parameters():
            if "cv3" in parameter and parameter.endswith("2.bias"):
                values.data.fill_(-0.5)  # else no random network is sure of anything
                values.data[0] = -3  # and no box is good
        count = len(network.model.names)
        network.model.names = {0: "good"} | {index: f"defect {index}" for index in range(1, count)}
        made = network.export(format="onnx", imgsz=96, simplify=False, **settings)
        file = folder / f"{name}-{len(list(folder.iterdir()))}.onnx"
        file.write_bytes(open(made, "rb").read())  # noqa: PTH123, SIM115 (export gives a string in the working folder)
        return file

    return export


@pytest.mark.parametrize(
    ("name", "settings", "layout"),
    [
        ("yolo11n", {}, "anchors"),
        ("yolov8n-seg", {}, "anchors"),
        ("yolo11n", {"nms": True, "conf": 0.01}, "rows"),
        ("yolo26n", {"end2end": True}, "rows"),
        ("yolo26n-seg", {"end2end": True}, "rows"),
    ],
)
def test_ultralytics_boxes(yolo, tmp_path, monkeypatch, name, settings, layout):
    monkeypatch.chdir(tmp_path)
    file = yolo(name, **settings)
    made = draft(ultralytics, file)
    assert made.outputs.boxes.layout == layout
    pixels = picture(SEED, WIDTH, HEIGHT)
    detection = answer(made, pixels, tmp_path)
    assert detection.score == pytest.approx(highest_confidence(file, pixels), abs=1e-4)


def highest_confidence(file, pixels):
    """Of a defect, in the graph's answer to what Ultralytics makes of the image. (Its predictor would do, but it drops
    boxes whose instance mask is empty.)"""
    import onnxruntime
    from ultralytics.data.augment import LetterBox

    letterbox = LetterBox((96, 96), auto=False)(image=np.ascontiguousarray(pixels[..., ::-1]))
    tensor = np.ascontiguousarray(letterbox[..., ::-1].transpose(2, 0, 1)[None], np.float32) / 255
    output = onnxruntime.InferenceSession(str(file)).run(None, {"images": tensor})[0][0]
    if output.shape[-1] in (6, 38):
        return float(output[:, 4][output[:, 5] > 0].max())
    return float(output[5:84].max())


def test_ultralytics_classifier(yolo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = yolo("yolo11n-cls")
    pixels = picture(SEED, WIDTH, HEIGHT)
    from ultralytics import YOLO

    predicted = YOLO(file, task="classify").predict(np.ascontiguousarray(pixels[..., ::-1]), imgsz=96, verbose=False)
    expected = 1 - float(predicted[0].probs.data[0])
    assert answer(draft(ultralytics, file), pixels, tmp_path).score == pytest.approx(expected, abs=1e-4)
