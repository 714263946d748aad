"""The method as a whole, on small drawn parts."""

import math

import numpy as np
import onnxruntime
import pytest
from PIL import Image, ImageDraw

from agent.workbench.errors import SettingOutOfRange, TooFewImages
from agent.workbench.fit.calibrate import Calibration, calibrate
from agent.workbench.fit.method import FitSettings, fit

QUICK = FitSettings(side=96, coreset_size=150)


def washer(seed, size=(128, 96)):
    """A ring on grey ground, never twice in quite the same place, with sensor noise; uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    height, width = size
    picture = Image.new("RGB", (width, height), (90, 95, 100))
    draw = ImageDraw.Draw(picture)
    y, x = height / 2 + rng.uniform(-4, 4), width / 2 + rng.uniform(-4, 4)
    draw.ellipse((x - 34, y - 34, x + 34, y + 34), fill=(190, 180, 170))
    draw.ellipse((x - 14, y - 14, x + 14, y + 14), fill=(60, 60, 65))
    noise = rng.normal(0, 3, (height, width, 3))
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)


def scratched(pixels):
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).line((30, 40, 60, 80), fill=(20, 20, 120), width=4)
    return np.asarray(picture)


@pytest.fixture(scope="module")
def washers():
    return [washer(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def fitted(washers):
    return fit(washers, QUICK)


def answer(fitted, pixels):
    session = onnxruntime.InferenceSession(fitted.model.SerializeToString(), providers=["CPUExecutionProvider"])
    score, anomaly_map = session.run(["score", "anomaly_map"], {"image": pixels[None]})
    return float(score[0]), anomaly_map[0, 0]


def test_the_order_of_the_images_does_not_matter(washers, fitted):
    order = np.random.default_rng(5).permutation(len(washers))
    shuffled = fit([washers[index] for index in order], QUICK)
    assert shuffled.model.SerializeToString() == fitted.model.SerializeToString()
    np.testing.assert_array_equal(shuffled.raw_scores, fitted.raw_scores[order])


def test_the_same_seed_gives_the_same_model_and_another_seed_another(washers, fitted):
    assert fit(washers, QUICK).model.SerializeToString() == fitted.model.SerializeToString()
    other = fit(washers, FitSettings(side=96, coreset_size=150, seed=1))
    assert other.model.SerializeToString() != fitted.model.SerializeToString()


def test_a_scratch_scores_above_the_threshold_and_shows_where_it_is(fitted):
    good_score, _ = answer(fitted, washer(100))
    bad_score, anomaly_map = answer(fitted, scratched(washer(101)))
    assert good_score < 0.5 < bad_score
    row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    rows, columns = anomaly_map.shape
    assert 36 <= (row + 0.5) / rows * 128 <= 84
    assert 26 <= (column + 0.5) / columns * 96 <= 64


def two_halves(seed):
    """Red on the left, blue on the right, with sensor noise."""
    pixels = np.random.default_rng(seed).normal(0, 3, (96, 96, 3)) + 60
    pixels[:, :48, 0] += 100
    pixels[:, 48:, 2] += 100
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("position_weight", [0.0, 30.0])
def test_what_is_in_the_wrong_place_is_an_anomaly_only_where_position_counts(position_weight):
    # Noise alone tells these images apart, so the threshold is set well away from it.
    settings = FitSettings(side=96, coreset_size=300, position_weight=position_weight, k=10)
    fitted = fit([two_halves(seed) for seed in range(12)], settings)
    assert answer(fitted, two_halves(100))[0] < 0.5
    mirrored_score, _ = answer(fitted, two_halves(101)[:, ::-1])
    assert (mirrored_score >= 0.5) == bool(position_weight)


@pytest.mark.parametrize("size", [(64, 64), (300, 200), (480, 640), (2048, 1500)])
def test_the_graph_takes_images_of_any_size(fitted, size):
    height, width = size
    pixels = np.asarray(Image.fromarray(washer(100)).resize((width, height)))
    score, anomaly_map = answer(fitted, pixels)
    assert 0 <= score <= 1
    assert anomaly_map.shape == (24, 16)
    assert np.isfinite(anomaly_map).all()


def test_a_bad_image_among_the_good_ones_is_an_outlier_and_does_not_move_the_threshold_far(washers, fitted):
    spoiled = fit([*washers, scratched(washer(50))], QUICK)
    assert spoiled.outliers[-1]
    assert spoiled.scores[-1] > 0.5
    assert spoiled.calibration.threshold == pytest.approx(fitted.calibration.threshold, rel=0.2)


def test_scores_of_good_images_come_from_models_that_did_not_see_them(washers, fitted):
    seen = np.mean([answer(fitted, pixels)[0] for pixels in washers])
    assert seen < fitted.scores.mean()


def test_copies_of_an_image_count_once(washers, fitted):
    with_copies = fit([washers[0], *washers, washers[0]], QUICK)
    assert with_copies.distinct_images == len(washers)
    assert with_copies.model.SerializeToString() == fitted.model.SerializeToString()
    assert with_copies.raw_scores[0] == with_copies.raw_scores[1] == with_copies.raw_scores[-1]


def test_too_few_different_images_are_refused(washers):
    with pytest.raises(TooFewImages, match="3 different good images are too few: at least 4"):
        fit([*washers[:3], washers[0]], QUICK)


def test_flat_images_make_a_model_that_still_finds_something_else():
    flat = [np.full((64, 64, 3), 100 + level, np.uint8) for level in range(6)]
    fitted = fit(flat, QUICK)
    assert answer(fitted, washer(0))[0] > 0.5


def test_progress_ends_at_the_full_count_of_each_step(washers):
    told = {}
    fit(washers[:4], QUICK, lambda what, done, count: told.update({what: (done, count)}))
    assert set(told.values()) == {(4, 4)}
    assert len(told) == 3


@pytest.mark.parametrize(("option", "value"), [("k", 0.0), ("k", math.nan), ("side", 32), ("side", 5000), ("seed", -1)])
def test_a_setting_out_of_range_is_refused(option, value):
    with pytest.raises(SettingOutOfRange, match="but must be"):
        FitSettings(**{option: value})


def test_the_threshold_is_the_median_plus_k_robust_deviations():
    calibration = calibrate(np.array([1.0, 2.0, 3.0, 4.0, 50.0]), k=3)
    assert calibration.sigma == pytest.approx(1.4826)  # median 3, absolute deviations 2 1 0 1 47: their median is 1
    assert calibration.threshold == pytest.approx(3 + 3 * 1.4826)


def test_equal_scores_leave_room_for_a_hundredth_of_the_median():
    assert calibrate(np.full(8, 5.0), k=3) == Calibration(threshold=pytest.approx(5.15), sigma=pytest.approx(0.05))


def test_a_distance_at_the_threshold_is_shown_as_one_half():
    calibration = Calibration(threshold=4.0, sigma=0.2)
    np.testing.assert_allclose(calibration(np.array([4.0, 4.2, 3.8])), [0.5, 0.731059, 0.268941], atol=1e-6)
