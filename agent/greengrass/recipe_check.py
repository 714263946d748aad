"""What both nuclei make of a recipe, told before a device finds out.

The Java nucleus and nucleus lite read the same recipe differently: keys in another case, a brace in a script or a
missing `runtime` are taken by one and fail, or worse half work, on the other. Each rule is a function; each finding is
a sentence with what to do. Where the facts come from: `docs/greengrass.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from agent.greengrass.recipe_parts import FORMAT, MAX_BYTES

NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
VERSION_REQUIREMENT = re.compile(r"[0-9A-Za-z.*xX<>=~^| +-]{1,200}")

RECIPE_KEYS = frozenset(
    {
        "RecipeFormatVersion",
        "ComponentName",
        "ComponentVersion",
        "ComponentDescription",
        "ComponentPublisher",
        "ComponentType",
        "ComponentConfiguration",
        "ComponentDependencies",
        "Manifests",
    }
)
MANIFEST_KEYS = frozenset({"Name", "Platform", "Artifacts", "Lifecycle", "Selections"})
PLATFORM_KEYS = frozenset({"os", "architecture", "architecture.detail", "runtime"})
"""All that nucleus lite detects; there is no key for a GPU."""
PLATFORM_VALUES = {
    "os": frozenset({"linux", "darwin", "windows", "all", "*"}),
    "architecture": frozenset({"amd64", "aarch64", "arm", "x86", "*"}),
}
ARTIFACT_KEYS = frozenset({"Uri", "Unarchive", "Permission", "Digest", "Algorithm"})
PERMISSIONS = frozenset({"NONE", "OWNER", "ALL"})
STEPS = frozenset({"bootstrap", "install", "run", "startup", "shutdown", "recover", "uninstall"})
STEP_KEYS = frozenset({"Script", "Setenv", "Timeout", "RequiresPrivilege", "Skipif"})
DEPENDENCY_KEYS = frozenset({"VersionRequirement", "DependencyType"})
POLICY_KEYS = frozenset({"policyDescription", "operations", "resources"})

VARIABLES = frozenset({"artifacts:path", "artifacts:decompressedPath", "work:path", "kernel:rootPath", "iot:thingName"})
"""What both nuclei put in for `{...}` in a lifecycle; besides `{configuration:/pointer}`."""
BRACED = re.compile(r"\{([^{}\s]*)\}")
UNPACKED = re.compile(r"\{artifacts:decompressedPath\}/*([^/\s\"';]+)")
OPERATIONS: Mapping[str, frozenset[str]] = {
    "aws.greengrass.ipc.pubsub": frozenset({"aws.greengrass#PublishToTopic", "aws.greengrass#SubscribeToTopic"}),
    "aws.greengrass.ipc.mqttproxy": frozenset({"aws.greengrass#PublishToIoTCore", "aws.greengrass#SubscribeToIoTCore"}),
}
"""Services that ask for authorisation and work on both nuclei, with their operations."""


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, and what to do."""

    place: str
    """Such as `Manifests[0].Lifecycle.run`."""
    sentence: str

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"


Recipe = Mapping[str, Any]
Found = Iterator[Finding]


def findings(recipe: object, size: int) -> list[Finding]:
    """What is wrong with `recipe`, a document read from `size` bytes of JSON or YAML; empty where nothing is."""
    if not isinstance(recipe, dict):
        return [Finding("recipe", "It is no mapping of keys to values; start from one of this project's recipes.")]
    found = [finding for rule in RULES for finding in rule(recipe)]
    if size > MAX_BYTES:
        found.append(
            Finding("recipe", f"It has {size} bytes, and {MAX_BYTES} are allowed; move scripts into artifacts.")
        )
    return found


# --- the rules


def _identity(recipe: Recipe) -> Found:
    yield from _unknown_keys("", {key: recipe[key] for key in recipe if key != "Lifecycle"}, RECIPE_KEYS)
    if "Lifecycle" in recipe:
        yield Finding("Lifecycle", "Take it out: steps belong into the Lifecycle of each manifest.")
    if recipe.get("RecipeFormatVersion") != FORMAT:
        yield Finding("RecipeFormatVersion", f'It must be "{FORMAT}".')
    if not _matches(NAME, recipe.get("ComponentName")):
        yield Finding("ComponentName", "It must be 1 to 128 letters, digits, '-', '_' and '.'.")
    if not _matches(VERSION, recipe.get("ComponentVersion")):
        yield Finding("ComponentVersion", 'It must be major.minor.patch as text, such as "1.0.0".')


def _dependencies(recipe: Recipe) -> Found:
    dependencies = recipe.get("ComponentDependencies")
    for name, dependency in _mapping(dependencies).items():
        place = f"ComponentDependencies.{name}"
        yield from _unknown_keys(place, dependency, DEPENDENCY_KEYS)
        if not _matches(NAME, name):
            yield Finding(place, "This is no component's name.")
        asked = _mapping(dependency)
        if not _matches(VERSION_REQUIREMENT, asked.get("VersionRequirement")):
            yield Finding(f"{place}.VersionRequirement", 'It must be a range of versions, such as ">=1.0.0 <2.0.0".')
        if asked.get("DependencyType", "HARD") not in ("HARD", "SOFT"):
            yield Finding(f"{place}.DependencyType", "It must be HARD or SOFT.")


def _manifests(recipe: Recipe) -> Found:
    manifests = recipe.get("Manifests")
    if not isinstance(manifests, list) or not manifests:
        yield Finding("Manifests", "There is none, so no platform matches and the deployment fails; write one.")
    takes_all = None
    for place, manifest in _each_manifest(recipe):
        yield from _unknown_keys(place, manifest, MANIFEST_KEYS)
        if takes_all is not None:
            yield Finding(place, f"It is never reached: {takes_all} comes first and matches everything.")
        platform = _mapping(manifest.get("Platform"))
        if all(platform.get(key, "*") in ("*", "all") for key in PLATFORM_KEYS):
            takes_all = place


def _platforms(recipe: Recipe) -> Found:
    for place, manifest in _each_manifest(recipe):
        platform = _mapping(manifest.get("Platform"))
        yield from _unknown_keys(f"{place}.Platform", platform, PLATFORM_KEYS)
        if platform.get("runtime") != "*":
            yield Finding(
                f"{place}.Platform.runtime", 'Set it to "*": without it one of the two nuclei does not match.'
            )
        for key, known in PLATFORM_VALUES.items():
            value = platform.get(key, "*")
            words = str(value).strip("/").split("|")  # the Java nucleus takes /amd64|x86/, lite does not
            if str(value).startswith("/"):
                yield Finding(
                    f"{place}.Platform.{key}", "Nucleus lite knows no patterns: write one manifest per value."
                )
            elif not set(words) <= known:
                yield Finding(f"{place}.Platform.{key}", f"{value!r} is never detected; it is one of {_listed(known)}.")


def _artifacts(recipe: Recipe) -> Found:
    for place, manifest in _each_manifest(recipe):
        for index, artifact in enumerate(_sequence(manifest.get("Artifacts"))):
            where = f"{place}.Artifacts[{index}]"
            yield from _unknown_keys(where, artifact, ARTIFACT_KEYS)
            uri = _in_any_case(_mapping(artifact), "Uri")
            if not isinstance(uri, str) or not re.fullmatch(r"(s3|greengrass|docker):\S+", uri):
                yield Finding(f"{where}.Uri", "It must be s3://BUCKET/KEY (or greengrass: or docker:).")
            if _mapping(artifact).get("Unarchive", "NONE") not in ("NONE", "ZIP"):
                yield Finding(f"{where}.Unarchive", "It must be NONE or ZIP.")
            for key, value in _mapping(_mapping(artifact).get("Permission")).items():
                if key not in ("Read", "Execute") or value not in PERMISSIONS:
                    yield Finding(f"{where}.Permission.{key}", f"Read and Execute take {_listed(PERMISSIONS)}.")


def _lifecycles(recipe: Recipe) -> Found:
    for place, manifest in _each_manifest(recipe):
        lifecycle = manifest.get("Lifecycle")
        where = f"{place}.Lifecycle"
        if not isinstance(lifecycle, dict) or not lifecycle:
            yield Finding(where, "It is empty, on which nucleus lite fails; give it a startup step that exits 0.")
            continue
        yield from _unknown_keys(where, lifecycle, STEPS | {"Setenv"})
        if {"run", "startup"} <= lifecycle.keys():
            yield Finding(where, "It has run and startup; a component has one of them.")
        if not {"run", "startup"} & lifecycle.keys():
            yield Finding(
                where, "It has neither run nor startup, and nucleus lite waits for one without end; add startup."
            )
        for step in STEPS & lifecycle.keys():
            yield from _step(f"{where}.{step}", lifecycle[step])


def _step(place: str, step: object) -> Found:
    if isinstance(step, str):  # a script without options
        return
    yield from _unknown_keys(place, step, STEP_KEYS)
    options = _mapping(step)
    script = _in_any_case(options, "Script")
    if not isinstance(script, str) or not script:
        yield Finding(f"{place}.Script", "There is no script to run.")
    if "Skipif" in options:
        yield Finding(f"{place}.Skipif", "Nucleus lite does not know it; let the script decide.")
    if options.get("RequiresPrivilege") not in (None, False):
        yield Finding(
            f"{place}.RequiresPrivilege", "It runs the step as root; do without, with a group that may do it."
        )
    timeout = options.get("Timeout", 1)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout <= 0:
        yield Finding(f"{place}.Timeout", "It must be a whole number of seconds above 0.")


def _texts_with_variables(recipe: Recipe) -> Found:
    for place, manifest in _each_manifest(recipe):
        for where, text in _texts(f"{place}.Lifecycle", manifest.get("Lifecycle")):
            yield from _braces(where, text, recipe)
            yield from _unpacked(where, text, manifest)
        for key in ("Artifacts", "Platform"):
            for where, text in _texts(f"{place}.{key}", manifest.get(key)):
                if BRACED.search(text):
                    yield Finding(where, "Variables are put in under Lifecycle only; here the braces stay.")


def _braces(place: str, text: str, recipe: Recipe) -> Found:
    for variable in BRACED.findall(text):
        if variable.startswith("configuration:"):
            yield from _pointer(place, variable.removeprefix("configuration:"), recipe)
        elif variable not in VARIABLES:
            known = f"{_listed(VARIABLES)} and configuration:/..."
            yield Finding(place, f"'{{{variable}}}' is no variable of both nuclei; they know {known}.")
    if re.search(r"[{}]", BRACED.sub("", text)) or "${" in text:
        yield Finding(
            place,
            "Nucleus lite takes every '{' for a variable and cuts the script off; write $X, or a file in the ZIP.",
        )


def _pointer(place: str, pointer: str, recipe: Recipe) -> Found:
    value: object = _mapping(recipe.get("ComponentConfiguration")).get("DefaultConfiguration")
    for key in pointer.strip("/").split("/"):
        if not isinstance(value, dict) or key not in value:
            yield Finding(
                place, f"'{pointer}' is not in DefaultConfiguration, so the script gets the braces; add it there."
            )
            return
        value = value[key]


def _unpacked(place: str, text: str, manifest: Recipe) -> Found:
    """A ZIP is unpacked into a folder that is called as it without `.zip`."""
    archives = {
        PurePosixPath(str(_mapping(artifact).get("Uri"))).stem
        for artifact in _sequence(manifest.get("Artifacts"))
        if _mapping(artifact).get("Unarchive") == "ZIP"
    }
    for folder in UNPACKED.findall(text):
        if folder not in archives:
            yield Finding(place, f"No ZIP is unpacked into '{folder}'; there is {_listed(archives) or 'none'}.")


def _access_control(recipe: Recipe) -> Found:
    name = str(recipe.get("ComponentName"))
    defaults = _mapping(_mapping(recipe.get("ComponentConfiguration")).get("DefaultConfiguration"))
    for service, policies in _mapping(defaults.get("accessControl")).items():
        place = f"accessControl.{service}"
        if service not in OPERATIONS:
            yield Finding(place, f"Both nuclei know {_listed(OPERATIONS)}.")
            continue
        for policy_id, policy in _mapping(policies).items():
            where = f"{place}.{policy_id}"
            yield from _unknown_keys(where, policy, POLICY_KEYS)
            if not str(policy_id).startswith(f"{name}:"):
                yield Finding(where, f"Policy ids are one per device: begin this one with '{name}:'.")
            operations = _sequence(_mapping(policy).get("operations"))
            for operation in operations:
                if operation not in OPERATIONS[service]:
                    yield Finding(f"{where}.operations", f"{operation!r} is none of {_listed(OPERATIONS[service])}.")
            if not operations or not _sequence(_mapping(policy).get("resources")):
                yield Finding(where, "It needs operations and resources.")


RULES: tuple[Callable[[Recipe], Found], ...] = (
    _identity,
    _dependencies,
    _manifests,
    _platforms,
    _artifacts,
    _lifecycles,
    _texts_with_variables,
    _access_control,
)


# --- looking into a document of which nothing is known


def _unknown_keys(place: str, given: object, known: frozenset[str]) -> Found:
    """Keys that nobody reads."""
    if not isinstance(given, dict):
        yield Finding(place, "It must be a mapping of keys to values.")
        return
    in_small_letters = {key.lower(): key for key in known}
    for key in given:
        where = f"{place}.{key}".lstrip(".")
        meant = in_small_letters.get(str(key).lower())
        if key not in known and meant is not None:
            yield Finding(where, f"Write '{meant}': nucleus lite tells capitals from small letters.")
        elif key not in known:
            yield Finding(where, f"There is no such key; known are {_listed(known)}.")


def _in_any_case(given: Recipe, key: str) -> object:
    """A value by its key; that the key is in the wrong case is told once, by `_unknown_keys`."""
    return next((value for name, value in given.items() if str(name).lower() == key.lower()), None)


def _each_manifest(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    for index, manifest in enumerate(_sequence(recipe.get("Manifests"))):
        yield f"Manifests[{index}]", _mapping(manifest)


def _texts(place: str, value: object) -> Iterator[tuple[str, str]]:
    """Every text in `value`, with its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(f"{place}.{key}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(f"{place}[{index}]", inner)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _listed(words: object) -> str:
    return ", ".join(sorted(map(str, words))) if isinstance(words, frozenset | set | dict) else str(words)
