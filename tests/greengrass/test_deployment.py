"""Deployment documents and their revisions."""

import json

import pytest

from agent import cli
from agent.workbench.components.deployment import ComponentToDeploy, read_deployment, revised
from agent.workbench.errors import BadDeployment

GROUP = "arn:aws:iot:eu-central-1:123456789012:thinggroup/line"
EXISTING = {
    "targetArn": GROUP,
    "revisionId": "7",
    "deploymentId": "9d5",
    "deploymentName": "line one",
    "deploymentStatus": "ACTIVE",
    "iotJobId": "12",
    "creationTimestamp": "2026-11-01T10:00:00+00:00",
    "isLatestForTarget": True,
    "components": {
        "com.example.Camera": {"componentVersion": "2.1.0", "runWith": {"posixUser": "camera"}},
        "com.example.Model": {
            "componentVersion": "1.0.0",
            "configurationUpdate": {"merge": '{"Registry": "/srv/registry", "a": {"b": 1}}', "reset": ["/c"]},
        },
    },
    "deploymentPolicies": {"failureHandlingPolicy": "ROLLBACK"},
    "iotJobConfiguration": {"timeoutConfig": {"inProgressTimeoutInMinutes": 60}},
    "tags": {"site": "one"},
}


def test_a_revision_loses_nothing():
    document = revised(EXISTING, [ComponentToDeploy("com.example.Model", "1.1.0")])
    for key in ("targetArn", "deploymentName", "deploymentPolicies", "iotJobConfiguration", "tags"):
        assert document[key] == EXISTING[key]
    assert document["components"]["com.example.Camera"] == EXISTING["components"]["com.example.Camera"]
    model = document["components"]["com.example.Model"]
    assert model["componentVersion"] == "1.1.0"
    assert model["configurationUpdate"] == EXISTING["components"]["com.example.Model"]["configurationUpdate"]


def test_what_became_of_the_deployment_is_not_sent_back():
    document = revised(EXISTING, [])
    told = {"revisionId", "deploymentId", "deploymentStatus", "iotJobId", "creationTimestamp", "isLatestForTarget"}
    assert told.isdisjoint(document)
    assert EXISTING["revisionId"] == "7"


def test_configurations_are_merged_over_what_was_merged_before():
    document = revised(EXISTING, [ComponentToDeploy("com.example.Model", "1.1.0", {"a": {"d": 2}, "Registry": "/x"})])
    update = document["components"]["com.example.Model"]["configurationUpdate"]
    assert json.loads(update["merge"]) == {"Registry": "/x", "a": {"b": 1, "d": 2}}
    assert update["reset"] == ["/c"]


def test_the_first_deployment_needs_a_target_and_takes_a_name():
    with pytest.raises(BadDeployment, match="--target-arn is missing"):
        revised(None, [ComponentToDeploy("a", "1.0.0")])
    document = revised(None, [ComponentToDeploy("a", "1.0.0", {"x": 1})], GROUP, "first")
    assert document == {
        "targetArn": GROUP,
        "deploymentName": "first",
        "components": {"a": {"componentVersion": "1.0.0", "configurationUpdate": {"merge": '{"x": 1}'}}},
    }


def test_components_are_removed_by_name_only():
    document = revised(EXISTING, [], remove=["com.example.Camera"])
    assert list(document["components"]) == ["com.example.Model"]
    with pytest.raises(BadDeployment, match=r"com\.example\.Camara is not in the existing deployment"):
        revised(EXISTING, [], remove=["com.example.Camara"])


def test_a_deployment_is_never_moved_to_another_target():
    with pytest.raises(BadDeployment, match=r"is for .*thinggroup/line, not for arn:other"):
        revised(EXISTING, [], target_arn="arn:other")


@pytest.mark.parametrize(
    ("content", "why"),
    [("no json", "no JSON"), ("[]", "no targetArn"), ('{"targetArn": "a", "components": []}', "no mapping")],
)
def test_what_is_no_deployment_is_refused(tmp_path, content, why):
    (tmp_path / "deployment.json").write_text(content)
    with pytest.raises(BadDeployment, match=why):
        read_deployment(tmp_path / "deployment.json")


# --- the command


def write(file, content):
    file.write_text(json.dumps(content))
    return str(file)


def test_a_first_deployment_is_printed(capsys):
    components = ["--component", "a=1.0.0", "--component", "b=2.0.0", "--configure", 'a={"Threads": 2}']
    assert cli.main(["greengrass", "deployment", "--target-arn", GROUP, "--name", "line one", *components]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "targetArn": GROUP,
        "deploymentName": "line one",
        "components": {
            "a": {"componentVersion": "1.0.0", "configurationUpdate": {"merge": '{"Threads": 2}'}},
            "b": {"componentVersion": "2.0.0"},
        },
    }


def test_a_revision_is_written_and_the_next_command_printed(tmp_path, capsys):
    existing, output = write(tmp_path / "existing.json", EXISTING), tmp_path / "new.json"
    options = ["--existing", existing, "--component", "com.example.Model=1.1.0", "--output", str(output)]
    assert cli.main(["greengrass", "deployment", *options]) == 0
    assert json.loads(output.read_text())["components"].keys() == EXISTING["components"].keys()
    expected = f"aws greengrassv2 create-deployment --cli-input-json file://{output}\n"
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--component", "a=1.0.0"], "--target-arn is missing"),
        (["--component", "a"], "--component a: it must be NAME=VERSION"),
        (["--component", "a=1.0.0", "--configure", "a={"], "--configure a: this is no JSON"),
        (["--component", "a=1.0.0", "--configure", "a=[1]"], "--configure a: it must be a JSON object"),
        (["--configure", 'a={"x": 1}'], "--configure a goes with --component a=VERSION"),
        (["--existing", "/nowhere.json"], "/nowhere.json is no JSON that can be read"),
        (["--target-arn", GROUP, "--output", "/dev/null/deployment.json"], "cannot be written"),
    ],
)
def test_what_cannot_be_deployed_is_one_sentence(capsys, options, told):
    assert cli.main(["greengrass", "deployment", *options]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("edge-agent greengrass: ") and told in printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""
