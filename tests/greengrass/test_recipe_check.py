"""One planted fault per rule; and a recipe without any."""

import copy

import pytest

from agent.greengrass.recipe_check import MAX_BYTES, findings

RIGHT = {
    "RecipeFormatVersion": "2020-01-25",
    "ComponentName": "com.example.Model",
    "ComponentVersion": "1.0.0",
    "ComponentDescription": "A model",
    "ComponentPublisher": "Example",
    "ComponentConfiguration": {
        "DefaultConfiguration": {
            "Registry": "/var/lib/edge-agent/registry",
            "accessControl": {
                "aws.greengrass.ipc.pubsub": {
                    "com.example.Model:pubsub:1": {
                        "policyDescription": "verdicts",
                        "operations": ["aws.greengrass#PublishToTopic"],
                        "resources": ["line/1/verdicts"],
                    }
                }
            },
        }
    },
    "ComponentDependencies": {
        "aws.iot.lookoutvision.EdgeAgent": {"VersionRequirement": ">=1.3.0 <2.0.0", "DependencyType": "SOFT"}
    },
    "Manifests": [
        {
            "Platform": {"os": "linux", "architecture": "aarch64", "runtime": "*"},
            "Artifacts": [{"Uri": "s3://bucket/key/model.zip", "Unarchive": "ZIP", "Permission": {"Read": "ALL"}}],
            "Lifecycle": {
                "startup": {
                    "Script": "sh {artifacts:decompressedPath}/model/register.sh {configuration:/Registry}",
                    "Setenv": {"WORK": "{work:path}"},
                    "Timeout": 30,
                },
                "shutdown": "true",
            },
        },
        {
            "Platform": {"os": "linux", "runtime": "*"},
            "Lifecycle": {"run": {"Script": "echo $HOME"}},
        },
    ],
}

MODEL, STARTUP = "Manifests[0]", "Manifests[0].Lifecycle.startup"
PUBSUB = "accessControl.aws.greengrass.ipc.pubsub"
CONTROL = "ComponentConfiguration/DefaultConfiguration/accessControl"
POLICY = f"{CONTROL}/aws.greengrass.ipc.pubsub/com.example.Model:pubsub:1"
ABSENT = object()


def planted(path, value):
    """RIGHT with `value` at `path`, keys and numbers of items between slashes; ABSENT takes it out."""
    recipe = copy.deepcopy(RIGHT)
    *way, last = path.split("/")
    inner = recipe
    for key in way:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    if value is ABSENT:
        del inner[last]
    else:
        inner[last] = value
    return recipe


def test_a_right_recipe_has_no_finding():
    assert findings(RIGHT, 1000) == []


@pytest.mark.parametrize(
    ("path", "value", "place", "told"),
    [
        # keys and identity
        ("RecipeFormatVersion", "2021", "RecipeFormatVersion", '"2020-01-25"'),
        ("recipeformatversion", "2020-01-25", "recipeformatversion", "Write 'RecipeFormatVersion'"),
        ("Lifecycle", {}, "Lifecycle", "Take it out"),
        ("ComponentName", "com/example", "ComponentName", "letters, digits"),
        ("ComponentName", "x" * 129, "ComponentName", "1 to 128"),
        ("ComponentVersion", "1.0", "ComponentVersion", "major.minor.patch"),
        ("ComponentVersion", 1.0, "ComponentVersion", "major.minor.patch"),
        # dependencies
        ("ComponentDependencies", {"a": {"VersionRequirement": "^1.0"}}, None, ""),
        ("ComponentDependencies", {"a": {}}, "ComponentDependencies.a.VersionRequirement", "range of versions"),
        (
            "ComponentDependencies",
            {"a": {"VersionRequirement": "*", "DependencyType": "soft"}},
            "ComponentDependencies.a.DependencyType",
            "HARD or SOFT",
        ),
        # manifests and platforms
        ("Manifests", [], "Manifests", "no platform matches"),
        ("Manifests", ABSENT, "Manifests", "no platform matches"),
        ("Manifests/0/Platform", {"runtime": "*"}, "Manifests[1]", "never reached"),
        ("Manifests/0/Platform/runtime", ABSENT, f"{MODEL}.Platform.runtime", 'Set it to "*"'),
        ("Manifests/0/Platform/gpu", "nvidia", f"{MODEL}.Platform.gpu", "no such key"),
        ("Manifests/0/Platform/architecture", "arm64", f"{MODEL}.Platform.architecture", "aarch64"),
        ("Manifests/0/Platform/architecture", "/amd64|x86/", f"{MODEL}.Platform.architecture", "knows no patterns"),
        ("Manifests/0/Platform/os", "Linux", f"{MODEL}.Platform.os", "linux"),
        # artifacts
        ("Manifests/0/Artifacts", [{"URI": "s3://b/model.zip"}], f"{MODEL}.Artifacts[0].URI", "Write 'Uri'"),
        ("Manifests/0/Artifacts", [{"Uri": "model.zip"}], f"{MODEL}.Artifacts[0].Uri", "s3://BUCKET/KEY"),
        (
            "Manifests/0/Artifacts",
            [{"Uri": "s3://b/model.zip", "Unarchive": "TAR"}],
            f"{MODEL}.Artifacts[0].Unarchive",
            "NONE or ZIP",
        ),
        (
            "Manifests/0/Artifacts",
            [{"Uri": "s3://b/model.zip", "Permission": {"Read": "EVERYBODY"}}],
            f"{MODEL}.Artifacts[0].Permission.Read",
            "ALL",
        ),
        (
            "Manifests/0/Artifacts",
            [{"Uri": "s3://b/{iot:thingName}.zip"}],
            f"{MODEL}.Artifacts[0].Uri",
            "under Lifecycle only",
        ),
        # lifecycles
        ("Manifests/0/Lifecycle", {}, f"{MODEL}.Lifecycle", "nucleus lite fails"),
        ("Manifests/0/Lifecycle", {"install": "true"}, f"{MODEL}.Lifecycle", "neither run nor startup"),
        ("Manifests/0/Lifecycle", {"run": "a", "startup": "b"}, f"{MODEL}.Lifecycle", "run and startup"),
        ("Manifests/0/Lifecycle", {"Run": "a", "startup": "b"}, f"{MODEL}.Lifecycle.Run", "Write 'run'"),
        ("Manifests/0/Lifecycle/SetEnv", {"A": "b"}, f"{MODEL}.Lifecycle.SetEnv", "Write 'Setenv'"),
        ("Manifests/0/Lifecycle/startup/script", "a", f"{STARTUP}.script", "Write 'Script'"),
        ("Manifests/0/Lifecycle/startup/Script", "", f"{STARTUP}.Script", "no script"),
        ("Manifests/0/Lifecycle/startup/Skipif", "onpath git", f"{STARTUP}.Skipif", "let the script decide"),
        ("Manifests/0/Lifecycle/startup/RequiresPrivilege", True, f"{STARTUP}.RequiresPrivilege", "as root"),
        ("Manifests/0/Lifecycle/startup/Timeout", "30", f"{STARTUP}.Timeout", "whole number"),
        # braces and variables
        ("Manifests/0/Lifecycle/startup/Script", "echo ${HOME}", f"{STARTUP}.Script", "cuts the script off"),
        ("Manifests/0/Lifecycle/startup/Script", "{ a; b; }", f"{STARTUP}.Script", "cuts the script off"),
        ("Manifests/0/Lifecycle/shutdown", "a {b", f"{MODEL}.Lifecycle.shutdown", "cuts the script off"),
        ("Manifests/0/Lifecycle/startup/Setenv", {"A": "{"}, f"{STARTUP}.Setenv.A", "cuts the script off"),
        (
            "Manifests/0/Lifecycle/startup/Script",
            "{com.example.Other:configuration:/a}",
            f"{STARTUP}.Script",
            "no variable of both nuclei",
        ),
        ("Manifests/0/Lifecycle/startup/Script", "{artifacts:Path}", f"{STARTUP}.Script", "no variable"),
        ("Manifests/0/Lifecycle/startup/Script", "{configuration:/A}", f"{STARTUP}.Script", "DefaultConfiguration"),
        (
            "Manifests/0/Lifecycle/startup/Script",
            "{artifacts:decompressedPath}/modell/x",
            f"{STARTUP}.Script",
            "No ZIP is unpacked into 'modell'; there is model",
        ),
        # access control
        (
            f"{POLICY}/operations",
            ["aws.greengrass#Publish"],
            f"{PUBSUB}.com.example.Model:pubsub:1.operations",
            "none of",
        ),
        (f"{POLICY}/operations", [], f"{PUBSUB}.com.example.Model:pubsub:1", "operations and resources"),
        (f"{POLICY}/resources", [], f"{PUBSUB}.com.example.Model:pubsub:1", "operations and resources"),
        (
            f"{CONTROL}/aws.greengrass.ipc.pubsub/other:1",
            {"operations": ["aws.greengrass#PublishToTopic"], "resources": ["*"]},
            f"{PUBSUB}.other:1",
            "begin this one with 'com.example.Model:'",
        ),
        (
            f"{CONTROL}/aws.greengrass.ipc.shadow",
            {},
            "accessControl.aws.greengrass.ipc.shadow",
            "Both nuclei know",
        ),
    ],
)
def test_a_planted_fault_is_found_and_nothing_else(path, value, place, told):
    found = findings(planted(path, value), 1000)
    if place is None:
        assert found == []
    else:
        assert place in [finding.place for finding in found]
        assert any(told in finding.sentence for finding in found if finding.place == place)
        assert all(finding.sentence.endswith((".", ";")) for finding in found)


def test_a_recipe_too_large_is_found():
    assert [finding.place for finding in findings(RIGHT, MAX_BYTES + 1)] == ["recipe"]


@pytest.mark.parametrize("document", [None, [], "text", 5, {}, {"Manifests": [None, 3]}, {"Manifests": {"a": 1}}])
def test_whatever_the_document_is_there_are_findings_and_no_failure(document):
    assert findings(document, 10)


@pytest.mark.parametrize("value", [None, 5, "text", [], [None], {"x": None}, {5: 5}])
@pytest.mark.parametrize(
    "path",
    [
        "ComponentConfiguration",
        "ComponentDependencies",
        "Manifests/0/Platform",
        "Manifests/0/Artifacts",
        "Manifests/0/Lifecycle",
        "Manifests/0/Lifecycle/startup",
        "Manifests/0/Lifecycle/startup/Script",
        "ComponentConfiguration/DefaultConfiguration",
        CONTROL,
    ],
)
def test_a_value_of_another_kind_never_makes_the_check_fail(path, value):
    findings(planted(path, value), 1000)
