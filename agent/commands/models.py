"""`edge-agent models register|list|remove`: the registry, by hand. A running agent follows within a second."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commands.options import add_registry
from agent.errors import Refusal

if TYPE_CHECKING:
    from agent.models.device_threshold import ThresholdFile


class SameVersionDiffers(Refusal):
    def __init__(self, component: str, version: str) -> None:
        super().__init__(
            f"{component} {version} is unpacked already with other content; the same name and version is never "
            "overwritten. Give the package a new version."
        )


class NoSuchRecord(Refusal):
    def __init__(self, component: str) -> None:
        super().__init__(f"{component!r} is not registered; `edge-agent models list` shows what is.")


class RegistryNotWritable(Refusal):
    def __init__(self, registry: Path, reason: str) -> None:
        super().__init__(
            f"The registry {registry} cannot be changed: {reason}. Use the agent's user, or --registry with "
            "the directory that your agent serves."
        )


@contextmanager
def failures_of(registry: Path) -> Iterator[None]:
    """What the system will not do with the registry becomes RegistryNotWritable."""
    try:
        yield
    except OSError as error:
        raise RegistryNotWritable(registry, error.strerror or str(error)) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    register = actions.add_parser("register", help="make a package known to the agent")
    register.add_argument(
        "package", type=Path, metavar="PACKAGE", help="a package: folder (used in place) or ZIP (unpacked)"
    )
    register.add_argument("--component", required=True, metavar="NAME", help="the name clients call it by")
    remove = actions.add_parser("remove", help="take a model off the agent")
    remove.add_argument("component", metavar="NAME")
    list_models = actions.add_parser("list", help="show what is registered")
    for action in (register, remove, list_models):
        add_registry(action)


def run(arguments: argparse.Namespace) -> int:
    from agent.settings import default_registry

    registry = Path(arguments.registry or default_registry()).absolute()
    with failures_of(registry):
        if arguments.action == "register":
            return _register(arguments.package, arguments.component, registry)
        if arguments.action == "remove":
            return _remove(arguments.component, registry)
        return _list(registry)


def _register(source: Path, component: str, registry: Path) -> int:
    from agent.models.registry import Record, check_component_name, write_record
    from agent.packages.package import read_package, verify_files

    check_component_name(component)
    folder = source.absolute() if source.is_dir() else _unpacked(source, component, registry)
    package = read_package(folder)
    verify_files(package)
    version = package.manifest.model.version
    write_record(registry, Record(component, version, str(folder)))
    print(f"{component} {version} is registered in {registry}.")
    return 0


def _unpacked(archive: Path, component: str, registry: Path) -> Path:
    from agent.packages.archive import manifest_in, unpack
    from agent.packages.package import read_package

    manifest = manifest_in(archive)
    folder = _packages_of(registry, component) / manifest.model.version
    if folder.is_dir():
        if read_package(folder).manifest != manifest:
            raise SameVersionDiffers(component, manifest.model.version)
    else:
        unpack(archive, folder)
    return folder


def _remove(component: str, registry: Path) -> int:
    from agent.models.registry import Registry, remove_record

    try:
        remove_record(registry, component)
    except FileNotFoundError:
        raise NoSuchRecord(component) from None
    _remove_threshold(Registry(registry).thresholds().get(component), component, registry)
    # What was unpacked on registering goes with the record; a folder that was used in place stays.
    shutil.rmtree(_packages_of(registry, component), ignore_errors=True)
    print(f"{component} is removed from {registry}.")
    return 0


def _remove_threshold(on_device: ThresholdFile | None, component: str, registry: Path) -> None:
    """A model that comes back under this name starts with its package's threshold. The log of changes stays: why a part
    was passed last month is asked of models, too, that have left since."""
    from agent.models.device_threshold import DeviceThreshold
    from agent.models.threshold_change import ThresholdChange, drop_threshold, now, user

    if on_device is None:
        return
    version, old = "", None
    if isinstance(on_device, DeviceThreshold):
        version, old = on_device.version, on_device.threshold
    drop_threshold(registry, ThresholdChange(now(), user(os.environ), "removed", component, version, old, None))


def _list(registry: Path) -> int:
    from tabulate import tabulate

    from agent.models.device_threshold import remark
    from agent.models.registry import Registry
    from agent.packages.package import read_package

    rows = []
    registered = Registry(registry)
    thresholds = registered.thresholds()
    for component, record in registered.records().items():
        try:
            manifest = read_package(Path(record.path)).manifest
            state = f"{manifest.task}, {manifest.image.width} x {manifest.image.height}"
            if said := remark(record.version, manifest.decision.threshold, thresholds.get(component)):
                state += f"; {said}"
        except Refusal as refusal:
            state = str(refusal)
        rows.append((component, record.version, state, record.path))
    if rows:
        print(tabulate(rows, headers=["component", "version", "package", "path"], disable_numparse=True))
    else:
        print(f"Nothing is registered in {registry}.")
    return 0


def _packages_of(registry: Path, component: str) -> Path:
    """Where the ZIPs of a component are unpacked, a folder per version."""
    return registry / "packages" / component
