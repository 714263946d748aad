"""What every kind of package has: its options, and the way from a draft to a component."""

from __future__ import annotations

import argparse
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import add_root
from agent.commands.workbench import with_bar
from agent.greengrass.recipe_parts import AGENT, BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.packages.manifest import Identity
    from agent.workbench.packaging.draft import Draft
    from agent.workbench.packaging.writer import Answer, Evidence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that are the same for every kind."""
    component = parser.add_argument_group("the component")
    component.add_argument("--component", required=True, metavar="NAME", help="the name clients call the model by")
    component.add_argument("--version", metavar="X.Y.Z", help="default: the model's own, else 1.0.0")
    component.add_argument("--description", default="", metavar="TEXT")
    component.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="may be given several times")
    component.add_argument(
        "--register-in",
        choices=("startup", "run"),
        default="startup",
        help="the component's lifecycle step (default: startup; run: for nucleus lite under systemd 252)",
    )
    component.add_argument(
        "--agent",
        default=AGENT,
        metavar="NAME",
        help="the component of the agent that serves it (default: %(default)s)",
    )
    component.add_argument(
        "--bucket", default=BUCKET, metavar="NAME", help="the S3 bucket of the recipe's artifact (default: %(default)s)"
    )
    component.add_argument("--arn", metavar="TEXT", help="the model ARN that clients are shown")
    component.add_argument("--licence", metavar="TEXT", help="the model's licence, for those who receive it")
    component.add_argument(
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where packages/, artifacts/ and recipes/ are written (default: here)",
    )
    component.add_argument("--dry-run", action="store_true", help="print the manifest that would result, write nothing")
    target = parser.add_argument_group("the target: a device, or a platform with its compiler options, or neither")
    target.add_argument("--target-device", metavar="NAME", help="jetson_xavier, jetson_orin, jetson_thor, x86_cpu, ...")
    target.add_argument("--target-platform", metavar="OS/ARCH[/ACCELERATOR]", help="LINUX/ARM64/NVIDIA, LINUX/X86_64")
    target.add_argument(
        "--compiler-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of a platform: gpu-code, trt-ver and cuda-ver, or mcpu; may be given several times",
    )
    images = parser.add_argument_group("images")
    images.add_argument(
        "--images",
        metavar="SOURCE",
        help="a folder (with normal/ and anomaly/, or not), glob or manifest: the self-test images are chosen of it",
    )
    add_root(images)
    images.add_argument("--self-test", metavar="DIR", help="1 to 8 images: exactly these are the self-test")
    images.add_argument("--image-size", metavar="WxH", help="of the camera; default: that of the images given")
    images.add_argument("--any-size", action="store_true", help="answer images of every size")
    images.add_argument(
        "--region", metavar="X,Y,W,H|PICTURE", help="inspect only this rectangle, or what is light in the picture"
    )
    images.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="X,Y,W,H|PICTURE",
        help="call this rectangle, or what is light in the picture, background always; may be given several times",
    )


def package(draft: Draft, arguments: argparse.Namespace) -> int:
    """Writes package, component and recipe of `draft`; prints what was found, what was made and what to do next."""
    from agent.packages.manifest import write_manifest
    from agent.workbench.packaging.camera import camera_image
    from agent.workbench.packaging.component import (
        Component,
        check_component,
        refuse_existing_component,
        write_component,
    )
    from agent.workbench.packaging.draft import with_engines_that_fit
    from agent.workbench.packaging.region import with_region
    from agent.workbench.packaging.self_test_choice import SelfTestImages
    from agent.workbench.packaging.target import target_of
    from agent.workbench.packaging.writer import draft_manifest, refuse_existing, write_package

    version = arguments.version or draft.version or "1.0.0"
    target = target_of(arguments.target_device, arguments.target_platform, arguments.compiler_option)
    tags = _tags(arguments.tag)
    component = Component(
        arguments.component,
        version,
        arguments.description,
        tags,
        target,
        arguments.register_in,
        arguments.agent,
        arguments.bucket,
    )
    check_component(component)
    folder = arguments.output / "packages" / f"{component.name}-{version}"
    if not arguments.dry_run:
        refuse_existing(folder)
        refuse_existing_component(component, arguments.output)

    images = SelfTestImages.of(
        arguments.images, arguments.self_test, arguments.root, lambda images: with_bar(images, "inspecting")
    )
    size = camera_image(draft, images.sizes, arguments.image_size, arguments.any_size)
    draft = with_engines_that_fit(with_region(draft, size, arguments.region, arguments.ignore), size)
    for note in draft.notes:
        print(f"- {note}", file=sys.stderr if arguments.dry_run else sys.stdout)
    identity = _identity(draft, arguments, version)

    def find_evidence(answer: Answer) -> Evidence:
        return images.evidence(draft, size, answer)

    if arguments.dry_run:
        manifest = draft_manifest(draft, identity, size, find_evidence, target)
        print(write_manifest(manifest).decode())
        _warn(images.warnings(manifest.self_test, manifest.decision.threshold))
        return 0
    package = write_package(draft, identity, size, find_evidence, folder, target)
    made = write_component(package, component, arguments.output)
    manifest = package.manifest
    accepted = "any size" if size.any_size else f"{size.width}x{size.height}"
    print(f"\n{component.name} {version}: {manifest.task}, images of {accepted}; its self-test passed:")
    for test in manifest.self_test:
        print(f"  {test.path}: {'anomalous' if test.is_anomalous else 'normal'}, score {test.score:.4f}")
    _warn(images.warnings(manifest.self_test, manifest.decision.threshold))
    print(f"Wrote {folder}\n      {made.archive}\n      {made.recipe}")
    print("Next:")
    print(f"  edge-agent evaluate {shlex.quote(str(folder))} LABELLED-IMAGES")
    print(f"  edge-agent models register {shlex.quote(str(folder))} --component {component.name}")
    return 0


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"Warning: {warning}", file=sys.stderr)


def _identity(draft: Draft, arguments: argparse.Namespace, version: str) -> Identity:
    from agent.packages.manifest import Identity

    return Identity(
        name=draft.name or arguments.component,
        version=version,
        lookout_vision_model_arn=draft.arn if arguments.arn is None else arguments.arn,
        source=draft.source,
        licence=draft.licence if arguments.licence is None else arguments.licence,
        training_images=draft.training_images,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _tags(given: list[str]) -> dict[str, str]:
    from agent.workbench.errors import SettingOutOfRange

    tags: dict[str, str] = {}
    for tag in given:
        key, equals, value = tag.partition("=")
        if not equals or not key or len(key) > 128 or len(value) > 256:
            allowed = "KEY=VALUE, a key of 1 to 128 and a value of at most 256 characters"
            raise SettingOutOfRange("--tag", repr(tag), allowed)
        if tags.get(key, value) != value:
            raise SettingOutOfRange("--tag", f"{key}={tags[key]} and {tag}", "given once for each key")
        tags[key] = value
    return tags
