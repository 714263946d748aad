"""The components as users build them, installed by their own install steps where no network can be reached."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from agent.greengrass.client_recipe import CAMERA, LIVE_VIEW, SAMPLE_CLIENT
from agent.greengrass.recipe_parts import AGENT
from agent.workbench.components.wheels import ALL_PLATFORMS, pinned_requirements
from agent.workbench.errors import WheelsNotFound
from agent.workbench.part_pictures import Defect, draw_part
from tests.support.agent_process import wait_for
from tests.support.greengrass_line import PLATES, Line, edge_agent
from tests.support.scraping import free_port

SIZE = {"width": 320, "height": 240}


def write_video(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Ten lossless frames; `pixels` are RGB."""
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless (group `clients`) is not installed")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 10, (SIZE["width"], SIZE["height"]))
    for _ in range(10):
        writer.write(pixels[..., ::-1])
    writer.release()


@pytest.mark.slow  # downloads some 180 MB
@pytest.mark.timeout(600)
def test_components_with_bundled_wheels_and_a_fitted_model_make_a_line_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("awsiot.greengrasscoreipc.clientv2", reason="awsiotsdk (extra `greengrass`) is not installed")
    here = f"{platform.machine()}-py{sys.version_info.major}{sys.version_info.minor}"
    if here not in map(str, ALL_PLATFORMS):
        pytest.skip(f"no component is built for {here}")
    try:
        pinned_requirements("tabulate\n")
    except WheelsNotFound as refusal:
        pytest.skip(f"no package index is reachable: {refusal}")
    site = tmp_path / "site"
    clients = ("--sample-client", PLATES, "--camera", PLATES, "--live-view")
    edge_agent("greengrass", "build", "--output", site, "--bundle-wheels", here, *clients)
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(20):
        Image.fromarray(draw_part(seed, **SIZE).pixels).save(photos / f"{seed}.png")
    edge_agent("fit", photos, "--output", tmp_path / "package")
    edge_agent("package", "fitted", tmp_path / "package", "--component", PLATES, "--output", site)
    parts = {"good": draw_part(100, **SIZE).pixels, "chipped": draw_part(100, Defect.CHIP, **SIZE).pixels}
    write_video(tmp_path / "chipped.avi", parts["chipped"])

    folder = Path(tempfile.mkdtemp(prefix="gg-"))
    try:
        with Line(site, folder, parts, lite=True) as line:
            line.deploy_agent()
            line.deploy_model()
            line.deploy_client()
            line.deploy_camera(source={"address": f"video:{tmp_path}/chipped.avi", "at_end": "repeat"})
            line.deploy_live_view()
            for component in (AGENT, *(client.component for client in (SAMPLE_CLIENT, CAMERA, LIVE_VIEW))):
                log = line.device.log(component)
                assert "installing from the wheels in this component, without a network" in log
                assert "install: installed in" in log
            line.wait_for_detections()
            assert re.search(r"^good\.png +normal ", line.client_log(), re.MULTILINE)
            assert re.search(r"^chipped\.png +ANOMALOUS ", line.client_log(), re.MULTILINE)
            port = free_port()
            line.nucleus.change(MetricsPort=port)
            wait_for("metrics", lambda: f"metrics: http://127.0.0.1:{port}/metrics" in line.device.log(AGENT))
            wait_for(
                "the camera's verdict", lambda: "reject" in [each["verdict"] for each in line.verdicts], patience=60
            )
            line.page().wait_for_text("✕ REJECT")
            line.device.restart_nucleus()
            assert "already installed: nothing to do" in line.device.log(AGENT)
            line.wait_for_detections()
    finally:
        shutil.rmtree(folder)
