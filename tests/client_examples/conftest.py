"""The own modules of camera client and live view can be imported by their tests; those that import generated stubs
cannot, for two generated copies of a proto cannot share a process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.fitted_model import fit_plates
from tests.support.gstreamer import gstreamers_environment

sys.path += [str(ROOT / "client_examples" / folder) for folder in ("camera", "live_view")]


@pytest.fixture(scope="session")
def gstreamer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process needs in its environment to use GStreamer."""
    return gstreamers_environment(tmp_path_factory.mktemp("bindings"))


@pytest.fixture(scope="session")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a fitted model."""
    return fit_plates(tmp_path_factory.mktemp("plates"))
