"""Any ONNX graph as a package: what is guessed, what is refused, and that the answers are the graph's own."""

import argparse

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from agent.commands.package import common
from agent.commands.package import onnx_graph as command
from agent.errors import Refusal
from agent.packages.manifest import GraphPreprocessing, LinearCalibration
from agent.workbench.errors import BadSource, SettingOutOfRange
from tests.support.graphs import answer, classifier, network, picture, pixel_network

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
WEIGHTS = np.array([[3.0, -2.0, 1.0], [-1.0, 2.0, 0.5], [0.5, 1.0, -3.0]])
BIAS = np.array([0.1, -0.2, 0.3])


def draft(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    common.add_arguments(parser)
    return command.draft(parser.parse_args([*map(str, words), "--component", "part"]))


def normalised(pixels, size=(64, 48)):
    """As torchvision: Pillow's bilinear resize, /255, ImageNet's mean and std; (h, w, 3)."""
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), np.float64)
    return (resized / 255 - MEAN) / STD


def softmax(logits, axis=-1):
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def notes_of(made):
    return "\n".join(made.notes)


# Classifiers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [None, "Softmax", "LogSoftmax"])
def test_a_classifier_answers_with_the_probability_that_the_image_is_not_normal(tmp_path, activation):
    file = classifier(tmp_path / "net.onnx", WEIGHTS, BIAS, activation)
    detection = answer(draft(file, "--normal", 1), picture(), tmp_path)
    probabilities = softmax(normalised(picture()).mean(axis=(0, 1)) @ WEIGHTS + BIAS)
    assert detection.score == pytest.approx(1 - probabilities[1], abs=1e-4)
    assert detection.mask is None


def test_classes_named_normal_are_so_without_being_told(tmp_path):
    file = classifier(tmp_path / "net.onnx", WEIGHTS, BIAS)
    made = draft(file, "--classes", "dent,Good,scratch")
    assert made.outputs.normal_class_ids == [1]
    assert "Normal: Good (--normal)." in made.notes


def test_class_names_come_from_a_file_too(tmp_path):
    (tmp_path / "names.txt").write_text("dent\nfine\nscratch\n")
    file = classifier(tmp_path / "net.onnx", WEIGHTS, BIAS)
    made = draft(file, "--classes", tmp_path / "names.txt", "--normal", "fine", "--normal", "0")
    assert made.outputs.normal_class_ids == [0, 1]


def test_independent_classes_score_by_the_highest_that_is_not_normal(tmp_path):
    file = classifier(tmp_path / "net.onnx", WEIGHTS, BIAS + 2, "Sigmoid")
    made = draft(file, "--normal", 0)
    probabilities = sigmoid(normalised(picture()).mean(axis=(0, 1)) @ WEIGHTS + BIAS + 2)
    assert probabilities[1:].sum() > 1  # a sum would not be a score
    assert answer(made, picture(), tmp_path).score == pytest.approx(probabilities[1:].max(), abs=1e-4)


def test_logits_of_independent_classes_are_told_by_an_option(tmp_path):
    file = classifier(tmp_path / "net.onnx", WEIGHTS, BIAS)
    made = draft(file, "--normal", 0, "--activation", "sigmoid")
    probabilities = sigmoid(normalised(picture()).mean(axis=(0, 1)) @ WEIGHTS + BIAS)
    assert answer(made, picture(), tmp_path).score == pytest.approx(probabilities[1:].max(), abs=1e-4)


@pytest.mark.parametrize(("normal", "sign"), [("0", 1), ("1", -1)])
def test_a_single_logit_is_the_probability_of_class_1(tmp_path, normal, sign):
    file = classifier(tmp_path / "net.onnx", WEIGHTS[:, :1], [-0.5])
    detection = answer(draft(file, "--normal", normal), picture(), tmp_path)
    logit = (normalised(picture()).mean(axis=(0, 1)) @ WEIGHTS[:, :1] - 0.5)[0]
    assert detection.score == pytest.approx(sigmoid(sign * logit), abs=1e-4)


def test_a_score_that_leaves_0_to_1_is_refused_unless_it_is_calibrated(tmp_path):
    file = classifier(tmp_path / "net.onnx", [[5.0], [0.0], [0.0]], [20.0])
    with pytest.raises(
        BadSource, match=r"gave .* and a score is in 0\.\.1\. Give --activation sigmoid .*--calibration"
    ):
        draft(file)
    detection = answer(draft(file, "--calibration", "linear:20,40"), picture(), tmp_path)
    raw = normalised(picture()).mean(axis=(0, 1))[0] * 5 + 20
    assert detection.score == pytest.approx((raw - 20) / 40 + 0.5, abs=1e-4)


def test_the_images_given_show_what_drawn_pictures_do_not(tmp_path):
    """The score is 4 * (red - blue): drawn pictures are grey."""
    file = classifier(tmp_path / "net.onnx", [[4.0], [0.0], [-4.0]], [0.5], "Relu")
    plain = ("--scale", "0.00392156862745098", "--mean", "0", "--std", "1")
    assert "Nothing in the graph keeps output in 0..1" in notes_of(draft(file, *plain))
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((80, 64, 3), (250, 0, 0), np.uint8)).save(tmp_path / "images" / "red.png")
    with pytest.raises(BadSource, match=r"gave 4\.42"):
        draft(file, *plain, "--images", tmp_path / "images")


# What goes in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [4, "N"])
def test_a_graph_for_several_images_at_once_answers_to_one(tmp_path, batch):
    file = classifier(tmp_path / "net.onnx", WEIGHTS, BIAS, shape=(batch, 3, 48, 64))
    made = draft(file, "--normal", 1)
    probabilities = softmax(normalised(picture()).mean(axis=(0, 1)) @ WEIGHTS + BIAS)
    assert answer(made, picture(), tmp_path).score == pytest.approx(1 - probabilities[1], abs=1e-4)
    assert ("takes 4 images at once" in notes_of(made)) == (batch == 4)


def test_channels_last_is_told_by_the_dimensions(tmp_path):
    file = network(
        tmp_path / "net.onnx",
        [helper.make_node("ReduceMean", ["input", "plane"], ["probability"], keepdims=0)],
        {"probability": [1, 3]},
        shape=(1, 48, 64, 3),
        constants={"plane": np.array([1, 2])},
    )
    made = draft(file, "--normal", 0, "--mean", 0, "--std", 3, "--channels", "BGR", "--activation", "none")
    assert (made.preprocessing.layout, made.preprocessing.width, made.preprocessing.height) == ("NHWC", 64, 48)
    resized = np.asarray(Image.fromarray(picture()).resize((64, 48), Image.Resampling.BILINEAR), np.float64) / 765
    # Three numbers that are no distribution: the highest of green and red, the last two of BGR.
    expected = resized.mean(axis=(0, 1))[:2].max()
    assert answer(made, picture(), tmp_path).score == pytest.approx(expected, abs=1e-4)


def test_a_graph_of_uint8_and_any_size_takes_the_cameras_image_itself(tmp_path):
    file = uint8_network(tmp_path / "net.onnx", (1, "H", "W", 3))
    made = draft(file)
    assert isinstance(made.preprocessing, GraphPreprocessing)
    assert answer(made, picture(), tmp_path).score == pytest.approx(picture().mean() / 255, abs=1e-4)


def test_a_graph_of_uint8_and_one_size_gets_resized_pixels_as_they_are(tmp_path):
    made = draft(uint8_network(tmp_path / "net.onnx", (1, 48, 64, 3)))
    resized = np.asarray(Image.fromarray(picture()).resize((64, 48), Image.Resampling.BILINEAR))
    assert answer(made, picture(), tmp_path).score == pytest.approx(resized.mean() / 255, abs=1e-4)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_grey_graph_of_uint8_gets_what_pillow_calls_grey(tmp_path, layout):
    shape = (1, 1, 48, 64) if layout == "NCHW" else (1, 48, 64, 1)
    made = draft(uint8_network(tmp_path / "net.onnx", shape))
    resized = Image.fromarray(picture()).resize((64, 48), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.convert("L"), np.float64).mean() / 255
    assert answer(made, picture(), tmp_path).score == pytest.approx(expected, abs=1e-4)
    assert "takes grey" in notes_of(made)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_grey_graph_of_floats_gets_normalised_luminance(tmp_path, layout):
    shape = (1, 1, 48, 64) if layout == "NCHW" else (1, 48, 64, 1)
    file = network(
        tmp_path / "net.onnx",
        [
            helper.make_node("ReduceMean", ["input", "all"], ["mean"], keepdims=0),
            helper.make_node("Sigmoid", ["mean"], ["score"]),
        ],
        {"score": [1]},
        shape=shape,
        constants={"all": np.array([1, 2, 3])},
    )
    made = draft(file, "--mean", 0.5, "--std", 0.25)
    resized = np.asarray(Image.fromarray(picture()).resize((64, 48), Image.Resampling.BILINEAR), np.float64)
    grey = (resized @ [0.299, 0.587, 0.114] / 255 - 0.5) / 0.25
    assert answer(made, picture(), tmp_path).score == pytest.approx(sigmoid(grey.mean()), abs=1e-4)


@pytest.mark.parametrize("opset", [9, 12, 17])
def test_nodes_are_added_to_graphs_of_any_age(tmp_path, opset):
    """A grey one with independent classes gets nodes before and behind it."""
    file = network(
        tmp_path / "net.onnx",
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
            helper.make_node("Sigmoid", ["logits"], ["output"]),
        ],
        {"output": [1, 3]},
        shape=(1, 1, 48, 64),
        constants={"weights": WEIGHTS[:1], "bias": BIAS},
        opset=opset,
    )
    resized = np.asarray(Image.fromarray(picture()).resize((64, 48), Image.Resampling.BILINEAR), np.float64)
    grey = (resized @ [0.299, 0.587, 0.114]).mean() / 255
    expected = sigmoid(grey * WEIGHTS[0] + BIAS)[1:].max()
    assert answer(draft(file, "--normal", 0), picture(), tmp_path).score == pytest.approx(expected, abs=1e-4)


def test_a_graph_in_half_precision_is_fed_it(tmp_path):
    file = network(
        tmp_path / "net.onnx",
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights"], ["logit"]),
        ],
        {"logit": [1, 1]},
        dtype=TensorProto.FLOAT16,
        output_dtype=TensorProto.FLOAT16,
        constants={"weights": WEIGHTS[:, :1].astype(np.float16)},
    )
    expected = sigmoid((normalised(picture()).mean(axis=(0, 1)) @ WEIGHTS[:, :1])[0])
    assert answer(draft(file), picture(), tmp_path).score == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize(
    ("operator", "values", "scale"),
    [("Sub", [0.485, 0.456, 0.406], 1 / 255), ("Sub", [124, 116, 104], 1), ("Div", [255.0], 1)],
)
def test_a_graph_that_normalises_by_itself_is_not_normalised_for(tmp_path, operator, values, scale):
    file = network(
        tmp_path / "net.onnx",
        [
            helper.make_node(operator, ["input", "values"], ["less"]),
            helper.make_node("GlobalAveragePool", ["less"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["output"]),
        ],
        {"output": [1, 3]},
        constants={"values": np.array(values, np.float32).reshape(1, -1, 1, 1)},
    )
    made = draft(file, "--normal", 0)
    assert made.preprocessing.scale == pytest.approx(scale)
    assert (made.preprocessing.mean, made.preprocessing.std) == ([0, 0, 0], [1, 1, 1])
    assert f"the graph starts with {operator}" in notes_of(made)


def test_torchvisions_resize_and_crop_are_said_by_options(tmp_path):
    file = classifier(tmp_path / "net.onnx", WEIGHTS, BIAS, shape=(1, 3, 48, 48))
    made = draft(file, "--normal", 1, "--resize", "crop", "--shorter-side", 64)
    pixels = picture(width=128, height=160)
    resized = np.asarray(Image.fromarray(pixels).resize((64, 80), Image.Resampling.BILINEAR), np.float64)
    cropped = (resized[16:64, 8:56] / 255 - MEAN) / STD
    probabilities = softmax(cropped.mean(axis=(0, 1)) @ WEIGHTS + BIAS)
    assert answer(made, pixels, tmp_path).score == pytest.approx(1 - probabilities[1], abs=1e-4)


def uint8_network(file, shape):
    """The mean brightness / 255."""
    return network(
        file,
        [
            helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "all"], ["mean"], keepdims=0),
            helper.make_node("Div", ["mean", "white"], ["score"]),
        ],
        {"score": [1]},
        shape=shape,
        dtype=TensorProto.UINT8,
        constants={"all": np.array([1, 2, 3]), "white": [255.0]},
    )


# Maps and masks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [None, "Softmax"])
def test_a_segmentation_net_paints_its_classes_and_scores_by_the_most_anomalous_pixel(tmp_path, activation):
    file = pixel_network(tmp_path / "net.onnx", WEIGHTS, BIAS, activation, shape=(1, 3, 80, 64))
    detection = answer(draft(file, "--classes", "background,dent,hole"), picture(), tmp_path)
    logits = normalised(picture(), (64, 80)) @ WEIGHTS.T + BIAS
    areas = {region.name: region.area for region in detection.regions}
    chosen = logits.argmax(axis=-1)
    wanted = {name: (chosen == index).mean() for index, name in enumerate(["background", "dent", "hole"])}
    assert areas == pytest.approx({name: area for name, area in wanted.items() if area}, abs=1e-3)
    assert detection.score == pytest.approx(softmax(logits)[..., 1:].sum(axis=-1).max(), abs=1e-4)


def test_several_channels_may_paint_one_type_and_any_of_them_be_background(tmp_path):
    file = pixel_network(tmp_path / "net.onnx", WEIGHTS, BIAS)
    made = draft(file, "--classes", "flaw,board,flaw", "--normal", "board")
    assert made.outputs.mask_labels == ["flaw", "background", "flaw"]
    assert [label.name for label in made.labels] == ["background", "flaw"]


def test_independent_channels_score_by_the_highest_one(tmp_path):
    file = pixel_network(tmp_path / "net.onnx", WEIGHTS, BIAS, "Sigmoid")
    detection = answer(draft(file), picture(), tmp_path)
    probabilities = sigmoid(normalised(picture()) @ WEIGHTS.T + BIAS)
    assert detection.score == pytest.approx(probabilities[..., 1:].max(), abs=1e-4)


def test_a_binary_net_with_one_logit_channel_becomes_a_map_of_probabilities(tmp_path):
    file = pixel_network(tmp_path / "net.onnx", WEIGHTS[:1], [-1.0], shape=(1, 3, 80, 64))
    made = draft(file, "--classes", "crack")
    probabilities = sigmoid(normalised(picture(), (64, 80)) @ WEIGHTS[0] - 1)
    detection = answer(made, picture(), tmp_path)
    assert detection.score == pytest.approx(probabilities.max(), abs=1e-4)
    areas = {region.name: region.area for region in detection.regions}
    assert areas["crack"] == pytest.approx((probabilities >= 0.5).mean(), abs=1e-3)
    assert "its sigmoid is put behind the graph" in notes_of(made)


def test_a_calibrated_map_paints_from_the_value_that_is_the_threshold(tmp_path):
    file = pixel_network(tmp_path / "net.onnx", [[10.0, 0.0, 0.0]], [30.0], output="anomaly_map", shape=(1, 3, 80, 64))
    made = draft(file, "--calibration", "linear:35,40", "--threshold", 0.6)
    assert made.decision.calibration == LinearCalibration(center=35, range=40)
    assert made.decision.pixel_threshold == pytest.approx(39)  # (0.6 - 0.5) * 40 + 35
    distances = normalised(picture(), (64, 80))[..., 0] * 10 + 30
    detection = answer(made, picture(), tmp_path)
    assert detection.score == pytest.approx((distances.max() - 35) / 40 + 0.5, abs=1e-4)
    areas = {region.name: region.area for region in detection.regions}
    assert areas["anomaly"] == pytest.approx((distances >= 39).mean(), abs=1e-3)


def test_a_map_beside_a_score_paints_and_the_score_decides(tmp_path):
    file = network(
        tmp_path / "net.onnx",
        [
            helper.make_node("Sigmoid", ["input"], ["three"]),
            helper.make_node("ReduceMean", ["three", "channel"], ["anomaly_map"], keepdims=1),
            helper.make_node("ReduceMean", ["anomaly_map", "plane"], ["pred_score"], keepdims=0),
        ],
        {"pred_score": [1, 1], "anomaly_map": [1, 1, 48, 64], "three": [1, 3, 48, 64]},
        constants={"channel": np.array([1]), "plane": np.array([2, 3])},
    )
    made = draft(file)
    assert (made.outputs.score, made.outputs.anomaly_map) == ("pred_score", "anomaly_map")
    expected = sigmoid(normalised(picture())).mean()
    assert answer(made, picture(), tmp_path).score == pytest.approx(expected, abs=1e-4)
    assert "Not read: three" in notes_of(made)
    assert draft(file, "--task", "classification").outputs.anomaly_map is None
    assert draft(file, "--anomaly-map", "anomaly_map").outputs.score is None


def test_a_mask_can_score_a_classification(tmp_path):
    file = pixel_network(tmp_path / "net.onnx", WEIGHTS, BIAS)
    segmentation = answer(draft(file), picture(), tmp_path / "segmentation")
    classification = answer(draft(file, "--task", "classification"), picture(), tmp_path / "classification")
    assert classification.score == segmentation.score
    assert classification.mask is None and not classification.regions


def test_a_score_beside_a_mask_is_not_turned_by_the_classes_of_the_mask(tmp_path):
    file = network(
        tmp_path / "net.onnx",
        [
            helper.make_node("Softmax", ["input"], ["mask"], axis=1),
            helper.make_node("ReduceMax", ["mask", "all"], ["score"], keepdims=0),
        ],
        {"score": [1], "mask": [1, 3, 48, 64]},
        constants={"all": np.array([1, 2, 3])},
    )
    made = draft(file, "--classes", "dent,board,hole", "--normal", "board")
    assert (made.outputs.score, made.outputs.class_mask) == ("score", "mask")
    assert made.outputs.mask_labels == ["dent", "background", "hole"]
    assert answer(made, picture(), tmp_path).score == pytest.approx(softmax(normalised(picture())).max(), abs=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_map_of_class_numbers_becomes_a_mask_of_the_named_classes(tmp_path, batch):
    file = network(
        tmp_path / "net.onnx",
        [helper.make_node("ArgMax", ["input"], ["numbers"], axis=1, keepdims=0)],
        {"numbers": [batch, 80, 64]},
        shape=(batch, 3, 80, 64),
        output_dtype=TensorProto.INT64,
    )
    with pytest.raises(SettingOutOfRange, match="--classes is not given, but must be the names of all classes"):
        draft(file)
    detection = answer(draft(file, "--classes", "board,dent,hole"), picture(), tmp_path)
    chosen = normalised(picture(), (64, 80)).argmax(axis=-1)
    areas = {region.name: region.area for region in detection.regions}
    assert areas == pytest.approx(
        {"background": (chosen == 0).mean(), "dent": (chosen == 1).mean(), "hole": (chosen == 2).mean()}, abs=1e-3
    )
    assert detection.score == 1


# What cannot be told ------------------------------------------------------------------------------------------------


def test_a_second_input_is_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Add", ["input", "other"], ["sum"])],
        "two",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("input", "other")],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    (tmp_path / "net.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(BadSource, match=r"takes 2 inputs .*Export it with everything but the image made a constant"):
        draft(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("shape", "dtype", "words", "sentence"),
    [
        ((1, 3, "H", "W"), TensorProto.FLOAT, [], "--size is not given, but must be the WIDTHxHEIGHT"),
        ((1, "C", 48, 64), TensorProto.FLOAT, [], "--layout is not given"),
        ((1, 3, 48, 64), TensorProto.FLOAT, ["--layout", "NHWC"], "--layout is NHWC, but must be the other one"),
        ((1, 3, 48, 64), TensorProto.FLOAT, ["--size", "64x64"], "--size is 64x64, but must be left out"),
        ((1, 3, 48, 64), TensorProto.FLOAT, ["--size", "64"], "--size is '64', but must be WIDTHxHEIGHT"),
        ((1, 4, 48, 64), TensorProto.FLOAT, ["--layout", "NCHW"], "but must be the other one"),
        ((3, 48, 64), TensorProto.FLOAT, [], "has 3 dimensions, not 4"),
        ((1, 3, 48, 64), TensorProto.DOUBLE, [], "Export it with a float32 input"),
        ((1, 3, 48, 64), TensorProto.UINT8, ["--mean", "0.5"], "takes pixels as they are"),
        ((1, "H", "W", 3), TensorProto.UINT8, ["--channels", "BGR"], "--channels is given, but must be left out"),
        ((1, 3, 48, 64), TensorProto.FLOAT, ["--std", "1,0,1"], "--std is 1,0,1, but must be above 0"),
        ((1, 3, 48, 64), TensorProto.FLOAT, ["--mean", "1,2"], "--mean is '1,2', but must be 1 or 3 numbers"),
        ((1, 1, 48, 64), TensorProto.FLOAT, ["--mean", "1,2,3"], "one number: it takes grey"),
        ((1, 3, 48, 64), TensorProto.FLOAT, ["--shorter-side", "80"], "and given with --resize crop"),
        ((1, 3, 48, 64), TensorProto.FLOAT, ["--no-antialias", "--interpolation", "area"], "only bilinear and bicubic"),
    ],
)
def test_an_input_that_cannot_be_fed_is_refused_with_what_to_do(tmp_path, shape, dtype, words, sentence):
    file = network(
        tmp_path / "net.onnx",
        [helper.make_node("Cast", ["input"], ["output"], to=TensorProto.FLOAT)],
        {"output": shape},
        shape=shape,
        dtype=dtype,
    )
    with pytest.raises(Refusal) as refused:
        draft(file, *words)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "--normal is not given, but must be the name or index of each normal class of the 3"),
        (["--classes", "a,b"], "--classes is 2 names, but must be 3"),
        (["--classes", "a,b,c"], "each normal class of the 3 (a, b, c)"),
        (["--classes", "a,,c"], "names with commas between"),
        (["--normal", "3"], "an index from 0 to 2"),
        (["--normal", "0", "--normal", "1", "--normal", "2"], "one has to be an anomaly"),
        (["--normal", "0", "--score", "nothing"], "one of the graph's outputs: output float32 [1, 3]"),
        (["--normal", "0", "--anomaly-map", "output"], "an output of another shape"),
        (["--normal", "0", "--task", "segmentation"], "--task is segmentation, but must be classification"),
        (["--normal", "0", "--pixel-threshold", "1"], "there is no anomaly map"),
        (["--normal", "0", "--combination", "mask"], "only segmentation has a mask"),
        (["--normal", "0", "--activation", "none"], "and a score is in 0..1"),
        (["--normal", "0", "--calibration", "linear:1,0"], "RANGE above 0"),
    ],
)
def test_an_option_that_does_not_fit_the_outputs_is_refused(tmp_path, words, sentence):
    file = classifier(tmp_path / "net.onnx", WEIGHTS, BIAS)
    with pytest.raises(Refusal) as refused:
        draft(file, *words)
    assert sentence in str(refused.value)


def test_rows_of_boxes_are_not_taken_for_a_map(tmp_path):
    file = network(
        tmp_path / "net.onnx",
        [helper.make_node("Reshape", ["input", "rows"], ["output"])],
        {"output": [1, 1536, 6]},
        constants={"rows": np.array([1, 1536, 6])},
    )
    with pytest.raises(BadSource, match="Say what they mean with --score"):
        draft(file)
    with pytest.raises(Refusal, match="another shape"):
        draft(file, "--class-mask", "output")


def test_a_graph_that_answers_nan_is_refused(tmp_path):
    file = network(
        tmp_path / "net.onnx",
        [helper.make_node("Log", ["input"], ["logs"]), helper.make_node("GlobalAveragePool", ["logs"], ["output"])],
        {"output": [1, 3, 1, 1]},
    )
    with pytest.raises(BadSource, match="answers NaN"):
        draft(file)


def test_a_graph_that_does_not_run_is_refused_with_what_to_do(tmp_path):
    file = network(
        tmp_path / "net.onnx",
        [helper.make_node("Reshape", ["input", "shape"], ["output"])],
        {"output": [1, 5]},
        constants={"shape": np.array([1, 5])},
    )
    with pytest.raises(BadSource, match=r"net\.onnx cannot be packaged: .*Export it again with opset 18"):
        draft(file)


def test_a_graph_that_fails_for_some_pictures_is_refused(tmp_path):
    """It looks up the row that the brightest value names, and there are three."""
    file = network(
        tmp_path / "net.onnx",
        [
            helper.make_node("ReduceMax", ["input", "all"], ["brightest"], keepdims=0),
            helper.make_node("Cast", ["brightest"], ["row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["rows", "row"], ["score"]),
        ],
        {"score": [1]},
        constants={"all": np.array([1, 2, 3]), "rows": [0.0, 0.5, 1.0]},
    )
    with pytest.raises(BadSource, match=r"fails for some pictures: .*Export it again"):
        draft(file, "--scale", "1", "--mean", "0", "--std", "1")


def test_a_graph_without_tensors_as_outputs_is_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("SplitToSequence", ["input"], ["parts"], axis=1)],
        "parts",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)],
    )
    (tmp_path / "net.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(BadSource, match="none of its outputs is a tensor of numbers"):
        draft(tmp_path / "net.onnx")


def test_a_folder_means_the_one_onnx_file_in_it(tmp_path):
    with pytest.raises(BadSource, match=r"holds no \.onnx file"):
        draft(tmp_path)
    classifier(tmp_path / "one.onnx", WEIGHTS, BIAS)
    assert draft(tmp_path, "--normal", 0).source.startswith("one.onnx")
    classifier(tmp_path / "two.onnx", WEIGHTS, BIAS)
    with pytest.raises(BadSource, match=r"2 \.onnx files \(one\.onnx, two\.onnx\)"):
        draft(tmp_path)


def test_what_is_guessed_is_told_with_the_option_that_says_otherwise(tmp_path):
    notes = notes_of(draft(classifier(tmp_path / "net.onnx", WEIGHTS, BIAS), "--normal", 0))
    for option in ("--resize", "--interpolation", "--channels", "--mean", "--std", "--activation", "--threshold"):
        assert option in notes
