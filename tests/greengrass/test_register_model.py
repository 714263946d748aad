"""The script that a model's component runs on the device."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.greengrass.model_recipe import ARCHIVE, model_recipe, registration_script, registry_of
from agent.greengrass.recipe_parts import AGENT
from agent.models.registry import Record, Registry, write_record
from agent.packages.manifest import TargetDevice, TargetPlatform
from tests.support.packages import make_package

SCRIPT = "register_model.sh"


def register(
    work: Path, *arguments: object, user: tuple[int, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the script as the nucleus does: with /bin/sh, in the component's work folder; `user`: id, then groups."""
    work.mkdir(parents=True, exist_ok=True)
    (work / SCRIPT).write_bytes(registration_script())
    rights: dict[str, Any] = {"user": user[0], "group": user[0], "extra_groups": user[1:]} if user else {}
    return subprocess.run(
        ["sh", SCRIPT, *map(str, arguments)],
        cwd=work,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        **rights,
    )


@pytest.mark.parametrize("name", ["package", "a b", 'quo"te', "back\\slash", "per%cent", "dol$lar", "ünï", "-dash"])
def test_the_agent_reads_what_the_script_writes(name: str, tmp_path: Path) -> None:
    package = make_package(tmp_path / name)
    ended = register(tmp_path / "work folder", "front.plate", "1.2.3", package, tmp_path / "the registry/of it")
    assert (ended.returncode, ended.stderr) == (0, "")
    record = Registry(tmp_path / "the registry/of it").records()["front.plate"]
    assert (record.version, record.path) == ("1.2.3", str(package))


def test_a_newer_version_replaces_the_record_and_leaves_nothing_else(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    packages = {version: make_package(tmp_path / version) for version in ("1.0.0", "1.1.0")}
    for version in ("1.0.0", "1.0.0", "1.1.0"):
        assert register(tmp_path / "work", "plate", version, packages[version], registry).returncode == 0
    assert Registry(registry).records()["plate"].version == "1.1.0"
    assert [path.name for path in registry.iterdir()] == ["plate.json"]


def test_other_users_may_read_the_record(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    register(tmp_path / "work", "plate", "1.0.0", package, tmp_path / "registry")
    assert (tmp_path / "registry/plate.json").stat().st_mode & 0o777 == 0o644


def test_a_registry_made_under_any_umask_is_one_that_the_agent_follows(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    before = os.umask(0)
    try:
        register(tmp_path / "work", "plate", "1.0.0", package, tmp_path / "registry")
        write_record(tmp_path / "by hand", Record("plate", "1.0.0", str(package)))
    finally:
        os.umask(before)
    for registry in ("registry", "by hand"):
        Registry(tmp_path / registry).check_writers()
        assert "plate" in Registry(tmp_path / registry).records()


def test_a_relative_registry_begins_at_the_work_folder(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    assert register(tmp_path / "work/model", "plate", "1.0.0", f"{package}/", registry_of(AGENT)).returncode == 0
    assert "plate" in Registry(tmp_path / "work/aws.iot.lookoutvision.EdgeAgent/registry").records()


def test_a_registry_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    package, late = make_package(tmp_path / "package"), tmp_path / "late"
    late.touch()  # no folder can be made below a file
    work = tmp_path / "work"
    work.mkdir()
    (work / SCRIPT).write_bytes(registration_script())
    # Its own `sleep` is what makes the folder, so that nobody has to wait.
    (work / "sleep").write_text(f"#!/bin/sh\nrm -f '{late}'\nmkdir -p '{late}'\n")
    (work / "sleep").chmod(0o755)
    ended = subprocess.run(
        ["sh", SCRIPT, "plate", "1.0.0", package, late / "registry"],
        cwd=work,
        env={**os.environ, "PATH": f"{work}:{os.environ['PATH']}"},
    )
    assert ended.returncode == 0
    assert "plate" in Registry(late / "registry").records()


def test_a_registry_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    package = make_package(tmp_path / "package")
    ended = register(tmp_path / "work", "plate", "1.0.0", package, tmp_path / "file/registry", REGISTER_SECONDS="0")
    assert ended.returncode == 1
    assert "Model plate 1.0.0 is not registered" in ended.stderr and "Deploy the agent" in ended.stderr


AGENTS_USER, MODELS_USER, SHARED_GROUP, STRANGER = 60001, 60002, 60003, 60004


@contextmanager
def being(user: int, *groups: int) -> Iterator[None]:
    """This process without root's rights, for a while."""
    os.setgroups(groups)
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([0])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users")
def test_a_model_of_another_user_registers_where_both_are_in_the_registrys_group() -> None:
    folder = Path(tempfile.mkdtemp(prefix="rg-"))  # pytest's own folders are for one user
    try:
        folder.chmod(0o755)
        package, registry, work = make_package(folder / "package"), folder / "registry", folder / "work"
        registry.mkdir()
        os.chown(registry, AGENTS_USER, SHARED_GROUP)
        registry.chmod(0o2770)
        model = (MODELS_USER, SHARED_GROUP)
        assert register(work, "plate", "1.0.0", package, registry, user=model).returncode == 0
        with being(AGENTS_USER, SHARED_GROUP):
            watched = Registry(registry)
            watched.check_writers()
            assert list(watched.records()) == ["plate"]
        refused = register(work, "other", "1.0.0", package, registry, user=(STRANGER,), REGISTER_SECONDS="0")
        assert refused.returncode == 1
        assert f"cannot write the agent's registry '{registry}'" in refused.stderr
    finally:
        shutil.rmtree(folder)


def test_what_is_no_package_is_not_registered(tmp_path: Path) -> None:
    ended = register(tmp_path / "work", "plate", "1.0.0", tmp_path / "nothing", tmp_path / "registry")
    assert ended.returncode == 1
    assert "no model package" in ended.stderr
    assert not (tmp_path / "registry").exists()


def test_a_line_break_in_the_path_is_not_registered(tmp_path: Path) -> None:
    package = make_package(tmp_path / "two\nlines")
    ended = register(tmp_path / "work", "plate", "1.0.0", package, tmp_path / "registry")
    assert ended.returncode == 1 and "control character" in ended.stderr


@pytest.mark.parametrize("slash", ["", "/"], ids=["java", "lite"])
def test_the_recipes_step_registers_the_unpacked_package(slash: str, tmp_path: Path) -> None:
    """With its variables put in as a nucleus does; on lite paths end with a slash."""
    unpacked = tmp_path / "artifacts unarchived"
    package = make_package(unpacked / ARCHIVE)
    (package / SCRIPT).write_bytes(registration_script())
    recipe = model_recipe("front.plate", "1.2.3", "A plate.", {}, None)
    script = recipe["Manifests"][0]["Lifecycle"]["startup"]["Script"]
    registry = recipe["ComponentConfiguration"]["DefaultConfiguration"]["Registry"]
    script = script.replace("{artifacts:decompressedPath}", f"{unpacked}{slash}")
    script = script.replace("{configuration:/Registry}", registry)
    assert "{" not in script
    (work := tmp_path / "work/front.plate").mkdir(parents=True)
    subprocess.run(["sh", "-c", script], cwd=work, check=True)
    record = Registry(tmp_path / "work/aws.iot.lookoutvision.EdgeAgent/registry").records()["front.plate"]
    assert (record.version, record.path) == ("1.2.3", str(package))


def test_the_recipe_holds_on_both_nuclei() -> None:
    recipe = model_recipe("front.plate", "1.2.3", "A plate.", {"line": "4"}, None)
    manifest = recipe["Manifests"][0]
    assert manifest["Platform"] == {"os": "linux", "runtime": "*"}
    assert manifest["Artifacts"] == [
        {
            "Uri": "s3://BUCKET_NAME/front.plate/1.2.3/model.zip",
            "Unarchive": "ZIP",
            "Permission": {"Read": "ALL"},
        }
    ]
    assert list(manifest["Lifecycle"]) == ["startup"]
    assert recipe["ComponentDependencies"]["aws.iot.lookoutvision.EdgeAgent"]["DependencyType"] == "SOFT"
    assert recipe["ComponentConfiguration"]["DefaultConfiguration"]["Tags"] == {"line": "4"}


@pytest.mark.parametrize(
    ("target", "architecture"),
    [
        (TargetDevice("jetson_orin"), "aarch64"),
        (TargetDevice("x86_cpu"), "amd64"),
        (TargetPlatform("LINUX", "ARM64"), "aarch64"),
    ],
)
def test_a_target_is_recorded_and_names_the_platform(target: TargetDevice | TargetPlatform, architecture: str) -> None:
    recipe = model_recipe("plate", "1.0.0", "", {}, target)
    assert recipe["Manifests"][0]["Platform"]["architecture"] == architecture
    assert recipe["ComponentConfiguration"]["DefaultConfiguration"]["Target"]["kind"] in ("device", "platform")
