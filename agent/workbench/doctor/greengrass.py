"""Whether this runs as a component of AWS IoT Greengrass, and what it needs for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

from agent.greengrass.nucleus import SOCKET, TOKEN
from agent.workbench.doctor.finding import Finding


def greengrass_findings(
    environment: Mapping[str, str], is_installed: Callable[[str], bool] = lambda name: find_spec(name) is not None
) -> list[Finding]:
    if SOCKET not in environment:
        return [Finding("Greengrass", "not a component here: settings come from flags, environment and file")]
    version = environment.get("GGC_VERSION", "unknown version")
    what = f"a component of nucleus {version}, thing {environment.get('AWS_IOT_THING_NAME', 'unknown')}"
    if TOKEN not in environment:
        todo = "start the agent from the component's run script itself, not by sudo or a service of its own"
        return [Finding("Greengrass", f"{what}, without its token ({TOKEN})", "problem", todo)]
    if not is_installed("awsiot"):
        todo = "pip install 'vision-edge-agent[greengrass]'; without it the component's configuration is not followed"
        return [Finding("Greengrass", f"{what}, without the SDK (awsiotsdk)", "problem", todo)]
    return [Finding("Greengrass", what)]
