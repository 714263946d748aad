"""The live view in a real browser, as the person at the line sees it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.support.agent_process import wait_for
from tests.support.browser import browser, complaints, look, needs_browser, requested
from tests.support.live_view_process import LiveViewProcess, append, needs_web, rejected, told

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

pytestmark = [needs_browser, needs_web]
FLAGS = ("--results", "results", "--overlays", "found", "--store", "store", "--port", "0")
FLAGS += ("--socket", "unix:///nonexistent/socket")


@pytest.fixture(scope="module")
def started() -> Iterator[Chrome]:
    with browser() as chrome:
        yield chrome


@pytest.fixture
def chrome(started: Chrome) -> Iterator[Chrome]:
    """At a desk by day, unless the test says otherwise."""
    look(started)
    yield started
    started.get("about:blank")  # it asks for nothing more


def wait_for_page(chrome: Chrome, words: str) -> None:
    """In one step, for the page replaces its elements."""
    question = "return document.body.innerText"
    wait_for(
        f"the page to say {words!r}", lambda: words in " ".join(chrome.execute_script(question).split()), every=0.1
    )


def test_a_page_that_is_left_open_shows_each_new_part(chrome: Chrome, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    append(tmp_path / "results", [told(1, reason=evil), rejected(2, camera=evil)])
    (tmp_path / "found").mkdir()
    Image.new("RGB", (96, 64), "blue").save(tmp_path / "found" / f"{told(3)['id']}-reject.jpg")
    with LiveViewProcess(tmp_path, *FLAGS) as view:
        view.wait_for_pictures(1, "camera=line-1")
        chrome.get(f"{view.address}?camera=line-1&window=1d")
        wait_for_page(chrome, "✓ PASS")
        assert evil in chrome.execute_script("return document.body.innerText")
        chrome.execute_script("document.querySelector('.windows a').focus()")
        append(tmp_path / "results", [rejected(3)])
        wait_for_page(chrome, "✕ REJECT")
        loaded = "const image = document.querySelector('#picture img'); return image ? image.naturalWidth : 0"
        wait_for("its picture", lambda: chrome.execute_script(loaded) == 96, every=0.1)
        wait_for_page(chrome, "1 day 2 1 50.0 %")
        assert chrome.execute_script("return document.querySelectorAll('[src=x]').length") == 0
        assert chrome.execute_script("return document.activeElement.textContent") == "last hour", "focus stays"
        assert complaints(chrome) == []
        assert {address.split("/")[2] for address in requested(chrome)} == {f"127.0.0.1:{view.port}"}

        view.kill()
        wait_for_page(chrome, "This page has lost its server: what it shows is of")
        assert "1 day 2 1 50.0 %" in " ".join(chrome.execute_script("return document.body.innerText").split())


@pytest.mark.slow
def test_with_100_000_results_the_page_is_whole_and_right(chrome: Chrome, tmp_path: Path) -> None:
    expected = half_a_year(tmp_path / "results", 100_000)
    with LiveViewProcess(tmp_path, *FLAGS) as view:
        wait_for("all of them", lambda: view.row("6 months")[:1] == ["100,000"], patience=60, every=0.1)
        for window, (pictures, rejects) in expected.items():
            row = view.row(window)
            assert (row[0], row[1], row[3]) == (f"{pictures:,}", f"{rejects:,}", f"{rejects:,}"), window
        chrome.get(f"{view.address}?window=6m")
        wait_for_page(chrome, "6 months 100,000")
        drawn = chrome.execute_script(
            "return ['#chart-counts rect.pass', '#chart-ratio rect', '#chart-scores path.scores-below',"
            " '#chart-scores path.threshold'].map(what => document.querySelectorAll(what).length)"
        )
        assert drawn[0] >= 90
        assert drawn[1] >= 80
        box = "return document.querySelector('#chart-scores path.scores-below').getBoundingClientRect().width"
        assert chrome.execute_script(box) > 200
        width = "return document.documentElement.scrollWidth <= window.innerWidth"
        assert chrome.execute_script(width), "nothing sticks out"
        assert complaints(chrome) == []
        addresses = requested(chrome)
        assert len(addresses) >= 5
        assert {address.split("/")[2] for address in addresses} == {f"127.0.0.1:{view.port}"}
    with LiveViewProcess(tmp_path, *FLAGS) as view:
        view.wait_for("all of them again", lambda: view.row("6 months")[:1] == ["100,000"])


def half_a_year(path: Path, count: int) -> dict[str, tuple[int, int]]:
    """Half of the results in the last half hour, the others over half a year; pictures and rejects of some windows.

    None lies where a window begins: whether it counts would depend on when it is asked for.
    """
    chance, now = random.Random(7), time.time()
    windows = {"last hour": 3600, "1 week": 7 * 86_400, "1 month": 30 * 86_400, "6 months": 182 * 86_400}
    ages = [181 * 86_400 * (1 - n / (count // 2)) for n in range(count // 2)]
    ages = [age for age in ages if all(abs(age - length) > 7200 for length in windows.values()) and age > 3600]
    ages += [1800 * (1 - n / count) for n in range(count - len(ages))]
    expected = dict.fromkeys(windows, (0, 0))
    templates = [json.dumps(make(0, id="ID", time="TIME")) for make in (told, rejected)]
    with path.open("w") as file:
        for number, age in enumerate(ages):
            is_reject = chance.random() < 0.02
            when = datetime.fromtimestamp(now - age, timezone.utc).isoformat(timespec="milliseconds")
            file.write(templates[is_reject].replace('"ID"', f'"line-1-{number}"').replace("TIME", when) + "\n")
            for name, length in windows.items():
                pictures, rejects = expected[name]
                if age < length:
                    expected[name] = (pictures + 1, rejects + is_reject)
    return expected


def test_on_a_phone_nothing_sticks_out(chrome: Chrome, tmp_path: Path) -> None:
    look(chrome, 390, 844, phone=True, dark=True)
    append(tmp_path / "results", [rejected(1, verdict="uncertain"), told(2, camera="line-2 with a very long name" * 4)])
    with LiveViewProcess(tmp_path, *FLAGS) as view:
        view.wait_for_pictures(1)
        chrome.get(view.address)
        wait_for_page(chrome, "? UNCERTAIN")
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= 390
        word = "const word = document.querySelector('.verdict .word'); return word.scrollWidth <= word.clientWidth"
        assert chrome.execute_script(word)
        assert chrome.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(16, 18, 22)"
        assert complaints(chrome) == []
