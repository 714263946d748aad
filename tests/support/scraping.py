"""A scrape: what Prometheus would read, parsed by its own library."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Scrape:
    """The samples of one text."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples: Samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Of the series with exactly these labels; None where there is none."""
        return self._samples.get((name, frozenset(labels.items())))

    def series(self, name: str) -> list[dict[str, str]]:
        """The labels of every series of this name."""
        return [dict(labels) for found, labels in self._samples if found == name]

    def models(self) -> set[str]:
        """All values that the label `model` has anywhere."""
        return {dict(labels)["model"] for _, labels in self._samples if "model" in dict(labels)}


def get(port: int, path: str = "/metrics") -> str:
    """Raises OSError where nobody answers, and its HTTPError for another status than 200."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        content: bytes = answer.read()
        return content.decode()


def scrape(port: int) -> Scrape:
    return Scrape(get(port))


def is_served(port: int) -> bool:
    try:
        get(port)
    except OSError:
        return False
    return True
