"""`edge-agent greengrass build|client|deployment|check`: Greengrass components. Nothing here uploads anything."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import __version__

if TYPE_CHECKING:
    from agent.workbench.components.layout import ComponentFiles


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_build(actions.add_parser("build", help="the components of the agent and of client examples: ZIPs and recipes"))
    _add_client(actions.add_parser("client", help="the component of your own client, from its folder"))
    _add_deployment(actions.add_parser("deployment", help="a deployment document, or a revision of one"))
    check = actions.add_parser("check", help="what both nuclei make of a recipe")
    check.add_argument("recipes", type=Path, nargs="+", metavar="RECIPE", help="JSON or YAML files")


def _add_build(build: argparse.ArgumentParser) -> None:
    from agent.greengrass.recipe_parts import AGENT

    build.add_argument("--name", default=AGENT, help="of the agent's component (%(default)s)")
    build.add_argument("--version", default=__version__, metavar="X.Y.Z", help="of the components (%(default)s)")
    build.add_argument(
        "--source", type=Path, default=Path(), metavar="DIR", help="a checkout, of which the wheel is built"
    )
    build.add_argument("--wheel", type=Path, metavar="FILE", help="the agent's wheel, instead of building it")
    build.add_argument(
        "--runtime",
        action="append",
        choices=["cpu", "gpu"],
        help="what the agent may be installed with (cpu); repeatable",
    )
    build.add_argument("--sample-client", metavar="MODEL", help="also the sample client, for the model component MODEL")
    build.add_argument("--camera", metavar="MODEL", help="also the camera client, for the model component MODEL")
    build.add_argument("--live-view", action="store_true", help="also the live view, of what the camera client writes")
    _add_destination(build)


def _add_client(client: argparse.ArgumentParser) -> None:
    client.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="with program, requirements*.txt and recipe.json, as a client example",
    )
    _add_destination(client)


def _add_destination(parser: argparse.ArgumentParser) -> None:
    from agent.greengrass.recipe_parts import BUCKET

    parser.add_argument("--output", type=Path, default=Path("greengrass-build"), metavar="DIR", help="%(default)s")
    parser.add_argument(
        "--bundle-wheels",
        action="append",
        default=[],
        metavar="PLATFORM",
        help="all wheels for devices without internet, such as aarch64-py310 or x86_64-py312; repeatable",
    )
    parser.add_argument(
        "--bucket", default=BUCKET, metavar="NAME", help="S3 bucket of the artifacts (%(default)s; gdk puts its own)"
    )
    parser.add_argument(
        "--gdk", action="store_true", help="as gdk's custom build wants it: recipe.json, cleared folder"
    )


def _add_deployment(deployment: argparse.ArgumentParser) -> None:
    deployment.add_argument(
        "--existing",
        type=Path,
        metavar="FILE",
        help="what `aws greengrassv2 get-deployment` prints; it is carried over",
    )
    deployment.add_argument("--target-arn", metavar="ARN", help="a thing or a thing group")
    deployment.add_argument("--name", help="of the deployment")
    deployment.add_argument(
        "--component", action="append", default=[], metavar="NAME=VERSION", help="deploy it in this version; repeatable"
    )
    deployment.add_argument(
        "--configure",
        action="append",
        default=[],
        metavar="NAME={...}",
        help="JSON that is merged into the configuration of a --component; repeatable",
    )
    deployment.add_argument("--remove", action="append", default=[], metavar="NAME", help="take it out; repeatable")
    deployment.add_argument("--output", type=Path, metavar="FILE", help="default: printed")


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "build":
        return _build(arguments)
    if arguments.action == "client":
        return _build_own_client(arguments)
    if arguments.action == "deployment":
        return _write_deployment(arguments)
    return _check(arguments.recipes)


def _build(arguments: argparse.Namespace) -> int:
    from agent.workbench.components.build import Destination, build_agent, build_client, build_wheel
    from agent.workbench.components.wheels import DevicePlatform
    from agent.workbench.errors import TooMuchForGdk

    _need_resolver()
    destination = Destination(arguments.output, arguments.bucket, arguments.gdk)
    bundled = [DevicePlatform.of(text) for text in arguments.bundle_wheels]
    runtimes = list(dict.fromkeys(arguments.runtime or ["cpu"]))
    clients = list(_clients(arguments))
    if arguments.gdk and clients:
        raise TooMuchForGdk
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        wheel = arguments.wheel or build_wheel(arguments.source, Path(folder))
        print("resolving what agent and clients need ...", file=sys.stderr)
        components = [build_agent(destination, wheel, arguments.version, arguments.name, runtimes, bundled)]
    components += [build_client(destination, folder, recipe, bundled) for folder, recipe in clients]
    _print_built(components)
    return 0


def _clients(arguments: argparse.Namespace) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and recipe of each client example that is asked for. Raises NoClientExample."""
    from agent.greengrass import client_recipe
    from agent.workbench.client_examples import client_example

    version, agent, bucket = arguments.version, arguments.name, arguments.bucket
    if arguments.sample_client:
        recipe = client_recipe.sample_client_recipe(version, arguments.sample_client, agent, bucket)
        yield client_example(client_recipe.SAMPLE_CLIENT.folder, arguments.source), recipe
    if arguments.camera:
        recipe = client_recipe.camera_recipe(version, arguments.camera, agent, bucket)
        yield client_example(client_recipe.CAMERA.folder, arguments.source), recipe
    if arguments.live_view:
        recipe = client_recipe.live_view_recipe(version, agent, bucket)
        yield client_example(client_recipe.LIVE_VIEW.folder, arguments.source), recipe


def _build_own_client(arguments: argparse.Namespace) -> int:
    from agent.workbench.components.build import Destination, build_client
    from agent.workbench.components.client_folder import own_recipe
    from agent.workbench.components.wheels import DevicePlatform

    _need_resolver()
    destination = Destination(arguments.output, arguments.bucket, arguments.gdk)
    bundled = [DevicePlatform.of(text) for text in arguments.bundle_wheels]
    _print_built([build_client(destination, arguments.folder, own_recipe(arguments.folder, arguments.bucket), bundled)])
    return 0


def _print_built(components: list[ComponentFiles]) -> None:
    for built in components:
        print(f"{built.archive} ({built.archive.stat().st_size:,} bytes)\n{built.recipe}")


def _need_resolver() -> None:
    """Raises MissingWorkbench where the workbench's libraries are not installed."""
    from agent.workbench.errors import MissingWorkbench

    if importlib.util.find_spec("uv") is None:
        raise MissingWorkbench("uv")


def _write_deployment(arguments: argparse.Namespace) -> int:
    from agent.workbench.components.deployment import read_deployment, revised
    from agent.workbench.output_file import renamed_to

    existing = read_deployment(arguments.existing) if arguments.existing else None
    components = _components(arguments.component, arguments.configure)
    document = revised(existing, components, arguments.target_arn, arguments.name, arguments.remove)
    text = json.dumps(document, indent=2)
    if arguments.output is None:
        print(text)
    else:
        with renamed_to(arguments.output) as file:
            file.write_text(text + "\n")
        print(f"aws greengrassv2 create-deployment --cli-input-json file://{arguments.output}")
    return 0


def _components(given: list[str], configured: list[str]) -> list[Any]:
    from agent.workbench.components.deployment import ComponentToDeploy
    from agent.workbench.errors import BadDeployment

    configurations = {}
    for text in configured:
        name, _, configuration = text.partition("=")
        try:
            configurations[name] = json.loads(configuration)
        except ValueError as error:
            raise BadDeployment(f"--configure {name}: this is no JSON ({error})") from None
        if not isinstance(configurations[name], dict):
            raise BadDeployment(f"--configure {name}: it must be a JSON object of keys and values")
    components = []
    for text in given:
        name, equals, version = text.partition("=")
        if not equals:
            raise BadDeployment(f"--component {text}: it must be NAME=VERSION")
        components.append(ComponentToDeploy(name, version, configurations.pop(name, None)))
    if configurations:
        raise BadDeployment(f"--configure {min(configurations)} goes with --component {min(configurations)}=VERSION")
    return components


def _check(recipes: list[Path]) -> int:
    from agent.greengrass.recipe_check import findings
    from agent.workbench.components.recipe_file import read_recipe

    count = 0
    for path in recipes:
        recipe, size = read_recipe(path)
        for finding in findings(recipe, size):
            print(f"{path}: {finding}")
            count += 1
    checked = "1 recipe" if len(recipes) == 1 else f"{len(recipes)} recipes"
    print(f"{checked}, {count or 'no'} {'finding' if count == 1 else 'findings'}")
    return 1 if count else 0
