"""From good images on disk to a package that a device takes, by the command and by hand."""

import argparse
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from agent.backends.base import BackendSettings
from agent.commands import fit as command
from agent.errors import Refusal
from agent.packages.package import read_package
from agent.pipeline import Pipeline
from agent.workbench.errors import ModelBlindToDefects, OutputExists, OutputNotWritable, SettingOutOfRange
from agent.workbench.fit import draft


def bolt(seed, size=(96, 80)):
    """A bright square on dark ground with sensor noise; uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    width, height = size
    picture = Image.new("RGB", size, (50, 55, 60))
    x, y = width / 2 + rng.uniform(-3, 3), height / 2 + rng.uniform(-3, 3)
    ImageDraw.Draw(picture).rectangle((x - 20, y - 20, x + 20, y + 20), fill=(180, 175, 160))
    return np.clip(np.asarray(picture) + rng.normal(0, 3, (height, width, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bolts") / "bolts"
    folder.mkdir()
    for seed in range(12):
        Image.fromarray(bolt(seed)).save(folder / f"{seed:02}.png")
    return folder


def run(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def package(photographs, tmp_path_factory):
    output = tmp_path_factory.mktemp("packages") / "bolts-1.0.0"
    assert run(photographs, "--output", output, "--size", 80) == 0
    return read_package(output)


@pytest.fixture
def pipeline(package):
    return Pipeline(package, BackendSettings(threads=1))


def test_the_package_passes_its_self_test(package, pipeline):
    answers = pipeline.self_test()
    verdicts = [(test.path, test.is_anomalous) for test, _ in answers]
    assert verdicts == [
        ("self-test/good-usual.rgb", False),
        ("self-test/good-best.rgb", False),
        ("self-test/drawn-defect.rgb", True),
    ]
    assert answers[-1][0].areas["anomaly"] > 0


def test_the_package_says_what_it_is(package):
    manifest = package.manifest
    assert (manifest.model.name, manifest.model.version) == ("bolts", "1.0.0")
    assert manifest.model.training_images == 12
    assert manifest.task == "segmentation"
    assert [(label.name, label.color) for label in manifest.labels] == [
        ("background", "#FFFFFF"),
        ("anomaly", "#23A436"),
    ]
    assert (manifest.image.width, manifest.image.height, manifest.image.any_size) == (96, 80, False)
    quantiles = list(manifest.reference.score_quantiles.values())
    assert quantiles == sorted(quantiles)
    assert manifest.reference.score_quantiles["0.5"] < 0.5


def test_a_new_defect_is_detected_and_called_anomaly(pipeline):
    good, bad = bolt(100), bolt(101)
    bad[30:40, 40:50] = (200, 30, 30)
    assert not pipeline.detect(good).is_anomalous
    detection = pipeline.detect(bad)
    assert detection.is_anomalous
    assert [region.name for region in detection.regions] == ["background", "anomaly"]
    assert (detection.mask[35, 45] == (0x23, 0xA4, 0x36)).all()
    assert (detection.mask[0, 0] == 255).all()


def test_anyone_may_read_the_package(package):
    assert package.folder.stat().st_mode & 0o777 == 0o755


def test_an_existing_folder_is_never_overwritten(photographs, package, tmp_path):
    before = (package.folder / "manifest.json").read_bytes()
    with pytest.raises(OutputExists, match="Choose another --version or another folder"):
        run(photographs, "--output", package.folder)
    assert (package.folder / "manifest.json").read_bytes() == before
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(OutputExists):
        run(photographs, "--output", empty)


def test_an_output_that_cannot_be_written_is_refused(photographs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputNotWritable, match="Choose another --output"):
        run(photographs, "--output", tmp_path / "file" / "package", "--size", 80)


def test_nothing_is_left_behind_where_no_package_can_be_made(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(draft, "with_drawn_defect", lambda pixels, share: pixels)
    with pytest.raises(ModelBlindToDefects, match="photograph one kind of part"):
        run(photographs, "--output", tmp_path / "out" / "bolts", "--size", 80)
    assert list((tmp_path / "out").iterdir()) == []


def test_images_of_any_size_are_answered_where_asked_for(photographs, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for seed in range(8):
        Image.fromarray(bolt(seed, (96, 80) if seed % 2 else (120, 100))).save(mixed / f"{seed}.png")
    assert run(mixed, "--any-size", "--size", 80, "--output", tmp_path / "package") == 0
    package = read_package(tmp_path / "package")
    assert package.manifest.image.any_size
    Pipeline(package, BackendSettings()).detect(np.zeros((300, 200, 3), np.uint8))


def test_the_file_names_and_their_order_do_not_change_the_model(photographs, package, tmp_path):
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for index, photograph in enumerate(sorted(photographs.iterdir(), reverse=True)):
        (renamed / f"photo-{index}.png").write_bytes(photograph.read_bytes())
    run(renamed, "--output", tmp_path / "package", "--size", 80)
    assert (tmp_path / "package" / "model.onnx").read_bytes() == (package.folder / "model.onnx").read_bytes()


def test_the_command_shows_scores_outliers_and_what_to_do_next(photographs, tmp_path, capsys):
    folder = tmp_path / "some bolts"
    folder.mkdir()
    for photograph in photographs.iterdir():
        (folder / photograph.name).write_bytes(photograph.read_bytes())
    spoiled = bolt(50)
    spoiled[30:50, 40:60] = (200, 30, 30)
    Image.fromarray(spoiled).save(folder / "spoiled.png")
    run(folder, "--output", tmp_path / "my package", "--size", 80)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("spoiled.png")  # the worst comes first
    assert lines[2].endswith("outlier")
    text = "\n".join(lines)
    assert "Outliers" in text and "Look at them" in text
    assert f"edge-agent detect '{tmp_path}/my package' IMAGE" in text
    assert f"edge-agent models register '{tmp_path}/my package' --component some-bolts" in text


def test_few_images_are_warned_about(tmp_path, capsys):
    folder = tmp_path / "few"
    folder.mkdir()
    for seed in range(5):
        Image.fromarray(bolt(seed)).save(folder / f"{seed}.png")
    run(folder, "--output", tmp_path / "package", "--size", 80)
    assert "Warning: 5 different good images make a poor threshold" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--version", "1.0"), ("--name", "a/b"), ("--name", ".hidden"), ("--size", "8"), ("--k", "nan"), ("--seed", "-1")],
)
def test_a_wrong_option_is_refused_before_anything_is_read(tmp_path, option, value):
    with pytest.raises(SettingOutOfRange, match="but must be"):
        run(tmp_path / "missing", option, value)


def test_every_refusal_is_one_of_the_agents(tmp_path):
    with pytest.raises(Refusal, match="no such file or folder"):
        run(tmp_path / "missing")


def test_the_manifest_is_what_people_can_read(package):
    text = (package.folder / "manifest.json").read_text()
    assert json.loads(text)["model"]["source"].startswith("edge-agent fit: 12 good images, moving part, size 80")
    assert text.count("\n") > 50
