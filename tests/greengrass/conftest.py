"""The SDK's real client against a nucleus of ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.nucleus import Nucleus


@pytest.fixture
def sdk() -> None:
    pytest.importorskip("awsiot.greengrasscoreipc.clientv2", reason="awsiotsdk (extra `greengrass`) is not installed")


@pytest.fixture(params=[False, True], ids=["java", "lite"])
def nucleus(request: pytest.FixtureRequest, sdk: None) -> Iterator[Nucleus]:
    with Nucleus({"QueueLength": 3, "Camera": {"Port": 7, "Names": ["left", 2]}}, lite=request.param) as nucleus:
        yield nucleus
