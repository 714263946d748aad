"""A device that treats recipes as a nucleus does: unpacks artifacts, puts in variables, runs steps, stops processes.

It has the two nuclei's own ways where they differ. The Java nucleus reads keys in any case, stops a component's
processes children first, five seconds each, and restarts HARD dependents with what they depend on. Nucleus lite wants
keys in the right case and a `runtime`, cuts a script off at a brace it does not know, has paths that end in a slash,
stops all processes at once, and takes HARD dependents down, for good, with a component that ends.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.nucleus.configuration import ConfigurationStore

STOP_LIMIT = 5.0
"""Seconds a process has after SIGTERM."""
STEP_LIMITS = {"install": 120, "startup": 120, "shutdown": 15, "uninstall": 120}
"""Seconds, where a recipe says no others."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "aarch64"}


class NotDeployable(Exception):
    """The nucleus makes nothing of a recipe: why."""


class StepFailed(AssertionError):
    """A step that had to exit 0 did not; with the component's log."""


@dataclass
class Component:
    """What the nucleus knows of a deployed component."""

    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    configuration: dict[str, Any]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    state: str = "INSTALLED"
    logs: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.recipe["ComponentName"])

    @property
    def version(self) -> str:
        return str(self.recipe["ComponentVersion"])


class GreengrassDevice:
    """A device below the folder `root`; `lite`: which nucleus; `environment`: added to that of every component."""

    def __init__(self, root: Path, lite: bool = False, environment: Mapping[str, str] | None = None) -> None:
        self.root, self._lite, self._environment = root, lite, dict(environment or {})
        self._components: dict[str, Component] = {}
        (root / "logs").mkdir(parents=True)

    def deploy(
        self,
        recipe: Path,
        artifacts: Path,
        configuration: Mapping[str, Any] | None = None,
        start: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Component:
        """Installs a component, in place of its earlier version, and starts it.

        `artifacts` is a folder with NAME/VERSION/...; `configuration` is merged over the recipe's defaults;
        `environment` is this component's alone.

        Raises:
            NotDeployable: no manifest is for this device, or its lifecycle cannot be read.
            StepFailed: install or startup did not exit 0.
        """
        document = json.loads(recipe.read_text())
        defaults = document.get("ComponentConfiguration", {}).get("DefaultConfiguration", {})
        store = ConfigurationStore(defaults)
        store.merge(dict(configuration or {}))
        component = Component(document, self._manifest_of(document), store.at([]), environment or {})
        self._unpack(component, artifacts)
        dependents = []
        if component.name in self._components:
            dependents = self._hard_dependents(component.name)
            for name in [*dependents, component.name]:
                self.stop(name)
        self._components[component.name] = component
        self._work(component).mkdir(parents=True, exist_ok=True)
        self._work(component).chmod(0o700)
        self._run_step(component, "install")
        if start:
            self.start(component.name)
        for name in [] if self._lite else dependents:
            self.start(name)
        return component

    def start(self, name: str) -> None:
        component = self._components[name]
        script = self._script_of(component, "run")
        if script is None:
            self._run_step(component, "startup")
        else:
            component.process = self._spawn(component, script)
        component.state = "RUNNING"

    def stop(self, name: str) -> None:
        """As before an update, a removal or the end of the nucleus."""
        component = self._components[name]
        if component.process is not None:
            stop_tree(component.process.pid, children_first=not self._lite)
            component.process.wait()
            component.process = None
        if not self._lite and component.state == "RUNNING":
            self._run_step(component, "shutdown", may_fail=True)
        component.state = "FINISHED"

    def remove(self, name: str) -> None:
        """Leaves nothing of the component but its log and its work folder."""
        self.stop(name)
        component = self._components.pop(name)
        if not self._lite:
            self._run_step(component, "uninstall", may_fail=True)
        for folder in (self._artifacts(component), self._unpacked(component)):
            subprocess.run(["rm", "-rf", folder], check=True)

    def restart_nucleus(self) -> None:
        """Stops everything and starts it again; install steps run again, as at every launch."""
        for name in reversed(list(self._components)):
            self.stop(name)
        for name, component in self._components.items():
            self._run_step(component, "install")
            self.start(name)

    def look(self) -> None:
        """What the nucleus does about processes that have ended since."""
        for component in list(self._components.values()):
            if component.process is None or component.process.poll() is None:
                continue
            code = component.process.returncode
            component.process = None
            component.state = "FINISHED" if code == 0 else "ERRORED"
            if self._lite:
                self._end_hard_dependents(component.name)

    def state(self, name: str) -> str:
        self.look()
        return self._components[name].state

    def log(self, name: str) -> str:
        return self._log_file(name).read_text(errors="replace")

    def process(self, name: str) -> subprocess.Popen[bytes]:
        process = self._components[name].process
        assert process is not None, f"{name} has no process"
        return process

    def work_folder(self, name: str) -> Path:
        return self._work(self._components[name])

    def close(self) -> None:
        for component in self._components.values():
            if component.process is not None:
                stop_tree(component.process.pid, children_first=False)
                component.process.wait()

    # --- folders, as /greengrass/v2 has them

    def _work(self, component: Component) -> Path:
        return self.root / "work" / component.name

    def _artifacts(self, component: Component) -> Path:
        return self.root / "packages" / "artifacts" / component.name / component.version

    def _unpacked(self, component: Component) -> Path:
        return self.root / "packages" / "artifacts-unarchived" / component.name / component.version

    def _log_file(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def _manifest_of(self, recipe: Mapping[str, Any]) -> Mapping[str, Any]:
        architecture = ARCHITECTURES[platform.machine()]
        for manifest in recipe["Manifests"]:
            wanted = self._get(manifest, "Platform", {})
            # Without a runtime a manifest is for the Java nucleus only (source of nucleus lite, ggl-recipe).
            runtimes = ("*", "aws_nucleus_lite") if self._lite else ("*", "aws_nucleus_classic")
            if (
                wanted.get("os", "*") in ("linux", "all", "*")
                and wanted.get("architecture", "*") in (architecture, "*")
                and wanted.get("runtime", "" if self._lite else "*") in runtimes
            ):
                if self._lite and not manifest.get("Lifecycle"):
                    raise NotDeployable("a lifecycle with no step is not supported")
                return dict(manifest)
        raise NotDeployable(f"no manifest of {recipe['ComponentName']} is for this device")

    def _get(self, given: Mapping[str, Any], key: str, otherwise: Any = None) -> Any:
        """A value by its key, whose case matters on one of the nuclei."""
        if self._lite:
            return given.get(key, otherwise)
        return next((value for name, value in given.items() if name.lower() == key.lower()), otherwise)

    def _unpack(self, component: Component, artifacts: Path) -> None:
        for artifact in self._get(component.manifest, "Artifacts", []):
            file_name = str(self._get(artifact, "Uri")).rpartition("/")[2]
            source = artifacts / component.name / component.version / file_name
            kept = self._artifacts(component) / file_name
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(source.read_bytes())
            if self._get(artifact, "Unarchive") == "ZIP":
                with zipfile.ZipFile(kept) as opened:
                    opened.extractall(self._unpacked(component) / Path(file_name).stem)

    # --- scripts

    def _script_of(self, component: Component, step: str) -> str | None:
        given = self._get(self._get(component.manifest, "Lifecycle"), step)
        script = given if isinstance(given, str) or given is None else self._get(given, "Script")
        if given is not None and script is None:
            raise NotDeployable(f"{step} of {component.name} has no Script")
        return None if script is None else self._with_variables(component, script)

    def _limit_of(self, component: Component, step: str) -> float:
        given = self._get(self._get(component.manifest, "Lifecycle"), step)
        options = given if isinstance(given, dict) else {}
        return float(self._get(options, "Timeout", STEP_LIMITS[step]))

    def _with_variables(self, component: Component, script: str) -> str:
        slash = "/" if self._lite else ""
        values = {
            "artifacts:path": f"{self._artifacts(component)}{slash}",
            "artifacts:decompressedPath": f"{self._unpacked(component)}{slash}",
            "work:path": f"{self._work(component)}{slash}",
            "kernel:rootPath": f"{self.root}{slash}",
            "iot:thingName": "thing",
        }

        def value_of(match: re.Match[str]) -> str:
            variable = match[1]
            if variable.startswith("configuration:/"):
                value: Any = component.configuration
                for key in variable.removeprefix("configuration:/").split("/"):
                    value = value[key]
                return value if isinstance(value, str) else json.dumps(value)
            return values.get(variable, match[0])

        script = re.sub(r"\{([^{}\s]+)\}", value_of, script)
        return script.partition("{")[0] if self._lite else script

    def _run_step(self, component: Component, step: str, may_fail: bool = False) -> None:
        script = self._script_of(component, step)
        if script is None:
            return
        process = self._spawn(component, script)
        try:
            code = process.wait(self._limit_of(component, step))
        except subprocess.TimeoutExpired:
            stop_tree(process.pid, children_first=True)
            code = process.wait()
        if code != 0 and not may_fail:
            component.state = "ERRORED"
            raise StepFailed(f"{step} of {component.name} ended with {code}:\n{self.log(component.name)}")

    def _spawn(self, component: Component, script: str) -> subprocess.Popen[bytes]:
        # A component inherits little; HOME is missing, as on nucleus lite.
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_REGION": "eu-central-1",
            "AWS_IOT_THING_NAME": "thing",
            "GGC_VERSION": "2.15.0",
            "SVCUID": f"token-of-{component.name}",
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self.root / "ipc.socket"),
            **self._environment,
            **component.environment,
        }
        with self._log_file(component.name).open("ab") as log:
            return subprocess.Popen(
                ["/bin/sh", "-c", script],
                cwd=self._work(component),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _hard_dependents(self, name: str) -> list[str]:
        return [other.name for other in self._components.values() if self._depends_hard(other, name)]

    def _depends_hard(self, component: Component, on: str) -> bool:
        dependency = component.recipe.get("ComponentDependencies", {}).get(on)
        # Nucleus lite binds those only that say it (source of nucleus lite, recipe2unit).
        default = "SOFT" if self._lite else "HARD"
        return dependency is not None and self._get(dependency, "DependencyType", default) == "HARD"

    def _end_hard_dependents(self, ended: str) -> None:
        for name in self._hard_dependents(ended):
            self.stop(name)


def stop_tree(pid: int, children_first: bool) -> None:
    """SIGTERM for a process and what it started, five seconds, SIGKILL."""
    tree = [*reversed(_descendants(pid)), pid]
    if children_first:
        for one in tree:
            _signal(one, signal.SIGTERM)
            _wait_for([one])
    else:
        for one in tree:
            _signal(one, signal.SIGTERM)
        _wait_for(tree)
    for one in tree:
        _signal(one, signal.SIGKILL)


def _wait_for(pids: list[int]) -> None:
    limit = time.monotonic() + STOP_LIMIT
    while time.monotonic() < limit and any(_is_alive(pid) for pid in pids):
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _descendants(pid: int) -> list[int]:
    children = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):  # of each thread that started some
        with suppress(OSError):
            children += [int(word) for word in listed.read_text().split()]
    return children + [inner for child in children for inner in _descendants(child)]


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
