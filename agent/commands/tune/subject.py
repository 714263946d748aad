"""Whose threshold it is about: a registered component, or a package that nobody serves yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.commands.models import failures_of
from agent.errors import Refusal
from agent.models.device_threshold import ThresholdFile, threshold_for
from agent.models.registry import Record, Registry
from agent.packages.archive import opened_package
from agent.packages.package import Package, read_package


class NeitherComponentNorPackage(Refusal):
    def __init__(self, name: str, registry: Path) -> None:
        super().__init__(
            f"{name!r} is neither registered in {registry} nor a package; `edge-agent models list` shows what is "
            "registered, and --registry names another registry."
        )


class NotAComponent(Refusal):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is a package; a device keeps thresholds by component. Register it with `edge-agent models "
            "register`, or name the component that serves it."
        )


@dataclass(frozen=True)
class Subject:
    """What is tuned."""

    record: Record | None
    """None: a package that is not asked for as a component."""
    package: Package
    on_device: ThresholdFile | None

    @property
    def version(self) -> str:
        return self.record.version if self.record else self.package.manifest.model.version

    def __str__(self) -> str:
        name = self.record.component if self.record else self.package.manifest.model.name
        return f"{name} {self.version}"

    @property
    def in_force(self) -> float:
        """The threshold that this version is judged by now, 0..1."""
        on_device = threshold_for(self.version, self.on_device)
        return self.package.manifest.decision.threshold if on_device is None else on_device


@contextmanager
def subject_of(name: str, registry: Path) -> Iterator[Subject]:
    """The component registered as `name`, else the package at that path (a ZIP is unpacked meanwhile).

    Raises:
        NeitherComponentNorPackage: it is neither.
        RegistryNotWritable: the registry cannot even be read.
        BadPackage: the package cannot be read.
    """
    with failures_of(registry):
        record, on_device = Registry(registry).records().get(name), Registry(registry).thresholds().get(name)
    if record is not None:
        yield Subject(record, read_package(Path(record.path)), on_device)
    elif Path(name).exists():
        with opened_package(Path(name)) as package:
            yield Subject(None, package, None)
    else:
        raise NeitherComponentNorPackage(name, registry)


@contextmanager
def component_of(name: str, registry: Path) -> Iterator[tuple[Subject, Record]]:
    """As `subject_of`, for what only a component has. Raises NotAComponent too."""
    with subject_of(name, registry) as subject:
        if subject.record is None:
            raise NotAComponent(name)
        yield subject, subject.record
