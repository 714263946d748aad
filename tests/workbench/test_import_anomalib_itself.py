"""Models that anomalib 2 itself exports, where it is installed (`pip install anomalib onnxscript`), answer as it does.

Weights are random, thresholds set by hand: what counts is that both give the same numbers.
"""

import warnings

import numpy as np
import pytest

from agent.backends.base import BackendSettings
from agent.packages.manifest import Identity, ImageSize
from agent.pipeline import Pipeline
from agent.workbench.importers.anomalib.decision import Choices
from agent.workbench.importers.anomalib.importer import draft_of
from agent.workbench.packaging.writer import Evidence, write_package

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

SIZE = (256, 256)


@pytest.fixture(scope="module")
def torch():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("anomalib.models", reason="anomalib is not installed")
    return pytest.importorskip("torch")


def padim(torch, **post_processing):
    from anomalib.models import Padim
    from anomalib.post_processing import PostProcessor

    model = Padim(
        backbone="resnet18",
        layers=["layer1"],
        pre_trained=False,
        n_features=10,
        post_processor=PostProcessor(**post_processing),
    )
    patches = (SIZE[0] // 4) * (SIZE[1] // 4)
    model.model.gaussian.mean = torch.zeros(10, patches)
    model.model.gaussian.inv_covariance = torch.eye(10).repeat(patches, 1, 1)
    return model


def patchcore(torch, **post_processing):
    from anomalib.models import Patchcore
    from anomalib.post_processing import PostProcessor

    model = Patchcore(
        backbone="resnet18", layers=["layer2"], pre_trained=False, post_processor=PostProcessor(**post_processing)
    )
    model.model.memory_bank = torch.rand(40, 128)
    return model


def photograph(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3)).repeat(32, axis=0).repeat(32, axis=1)
    return np.clip(coarse + rng.normal(0, 20, (*SIZE, 3)), 0, 255).astype(np.uint8)


def calibrate(torch, model, scores, pixels):
    """Puts the threshold among the raw scores, and the ends of the scale inside them, so that some are clipped."""
    found = model.post_processor
    for name, values in (("image", scores), ("pixel", pixels)):
        low, middle, high = (float(np.quantile(values, part)) for part in (0.25, 0.5, 0.75))
        getattr(found, f"_{name}_threshold").copy_(torch.tensor(middle))
        getattr(found, f"{name}_min").copy_(torch.tensor(low))
        getattr(found, f"{name}_max").copy_(torch.tensor(high))


@pytest.mark.parametrize("input_size", [None, SIZE], ids=["any size", "fixed size"])
@pytest.mark.parametrize("make", [padim, patchcore])
@pytest.mark.parametrize("sensitivity", [0.5, 0.6])
def test_an_export_answers_as_the_model_it_was_made_of(make, input_size, sensitivity, torch, tmp_path):
    torch.manual_seed(0)
    model = make(torch, image_sensitivity=sensitivity, pixel_sensitivity=sensitivity).eval()
    images = [photograph(seed) for seed in range(8)]
    tensors = [torch.from_numpy(image / 255).permute(2, 0, 1)[None].float() for image in images]
    with torch.no_grad():
        raw = [model.model(model.pre_processor(tensor)) for tensor in tensors]
        calibrate(
            torch,
            model,
            [float(one.pred_score.max()) for one in raw],
            np.concatenate([one.anomaly_map.numpy().ravel() for one in raw]),
        )
        answers = [model(tensor) for tensor in tensors]
        model.to_onnx(tmp_path / "export", input_size=input_size)

    package = write_package(
        draft_of(tmp_path / "export", Choices()),
        Identity("parts", "1.0.0"),
        ImageSize(*SIZE),
        lambda answer: Evidence([("one", images[0])]),
        tmp_path / "package",
    )
    pipeline = Pipeline(package, BackendSettings(threads=1))
    for image, answer in zip(images, answers, strict=True):
        detection = pipeline.detect(image)
        assert detection.score == pytest.approx(float(answer.pred_score.max()), abs=1e-4)
        assert detection.is_anomalous == bool(answer.pred_label.any())
        differing = (detection.mask != 255).any(axis=2) != answer.pred_mask.numpy().reshape(SIZE)
        assert differing.mean() < 1e-3  # pixels at the threshold: sums in another order
    assert {0.0, 1.0} & {pipeline.detect(image).score for image in images}  # some were clipped
