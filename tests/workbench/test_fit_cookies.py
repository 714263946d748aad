"""Fit on real photographs: 31 good biscuits for fitting; 14 good and 8 cracked ones it has not seen."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from agent.workbench.dataset.good_images import PixelsOf, good_images
from agent.workbench.fit.method import FitSettings, fit

COOKIES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cookies"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not COOKIES.is_dir(), reason="the photographs (../shared/data/cookies) are not here"),
]


@pytest.mark.parametrize("seed", [0, 1])
def test_cracked_biscuits_score_above_good_ones_and_mostly_above_the_threshold(seed):
    good = good_images(str(COOKIES / "training-images" / "normal-*.jpg"))
    fitted = fit(PixelsOf(good), FitSettings(seed=seed))
    session = onnxruntime.InferenceSession(fitted.model.SerializeToString(), providers=["CPUExecutionProvider"])
    tests = good_images(str(COOKIES / "test-images"))
    scores = np.array([session.run(["score"], {"image": image.pixels[None]})[0][0] for image in tests])
    cracked = np.array(["anomaly" in image.path.name for image in tests])

    assert (len(good), int(cracked.sum()), int((~cracked).sum())) == (31, 8, 14)
    auroc = (scores[cracked][:, None] > scores[~cracked][None]).mean()
    assert auroc >= 0.98
    called = scores >= 0.5
    f1 = 2 * (called & cracked).sum() / (called.sum() + cracked.sum())
    assert f1 >= 0.9
    assert fitted.outliers[[image.path.name for image in good].index("normal-31.jpg")]
