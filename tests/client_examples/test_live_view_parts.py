"""The live view's parts: what is read of files, kept in the store, asked of it and drawn."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from camera_client.sinks.json_lines import JsonLinesWriter
from dashboard import charts, following, history, store, words
from dashboard.charts import Axis
from dashboard.door import address_of, open_door
from dashboard.following import Following
from dashboard.history import Counts, Line
from dashboard.pictures import Pictures
from dashboard.result import DamagedLine, read_line
from dashboard.results_file import NewLines, Piece, ResultsFile
from dashboard.settings import Settings, WrongSetting, settings_from
from dashboard.store import Store, StoreUnusable, open_for_reading
from dashboard.windows import DAY, HOUR, KEPT_FOR, WINDOW_OF, WINDOWS

from tests.support.agent_process import wait_for
from tests.support.checkout import ROOT
from tests.support.live_view_process import append, rejected, told, unanswered

NOW = 1_795_262_400.0  # 21 November 2026, 12:00 UTC


def iso(second: float) -> str:
    return datetime.fromtimestamp(second, timezone.utc).isoformat(timespec="milliseconds")


def results(*records: dict[str, Any]) -> list[Any]:
    return [read_line(json.dumps(record).encode()) for record in records]


def keep(into: Store, *records: dict[str, Any], now: float = NOW) -> int:
    return into.add(NewLines(Piece("file", b"first"), [], 1), results(*records), now)


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    kept = Store(tmp_path / "store")
    yield kept
    kept.close()


@pytest.fixture
def database(kept: Store, tmp_path: Path) -> Any:
    with open_for_reading(tmp_path / "store") as database:
        yield database


def only_line(database: sqlite3.Connection) -> Line:
    [line] = history.lines(database)
    return line


class Followed:
    """A file that is followed by hand: into ids, with what has been read of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = ResultsFile(path)
        self._positions: dict[Piece, int] = {}
        self.ids: list[str] = []

    def position(self, piece: Piece) -> int:
        return self._positions.get(piece, 0)

    def look(self) -> list[str]:
        for read in self._file.new_lines(self):
            self.ids += [json.loads(line)["id"] for line in read.lines]
            self._positions[read.piece] = read.position
        return self.ids

    def restart(self) -> None:
        self._file = ResultsFile(self._path)


# What is read


def test_a_file_that_the_camera_client_puts_aside_is_read_once_and_whole(tmp_path: Path) -> None:
    """It does so after every eighth line here; we look now and then, and restart in between."""

    class Sink(JsonLinesWriter):
        def tell(self, number: int) -> None:
            class Inspection:
                def record(self) -> dict[str, Any]:
                    return told(number)

            self.write(Inspection())  # type: ignore[arg-type]

    from camera_client.settings import JsonLines

    path = tmp_path / "verdicts.jsonl"
    sink = Sink(JsonLines(path=str(path), most_megabytes=0.006))
    followed = Followed(path)
    for number in range(100):
        sink.tell(number)
        if number % 7 == 0:
            followed.restart()
        if number % 3 == 0 and path.exists():
            followed.look()
    if path.exists():
        followed.look()
    assert path.with_name("verdicts.jsonl.1").exists()
    assert followed.ids == [told(number)["id"] for number in range(len(followed.ids))]
    assert len(followed.ids) >= 95, "all but those behind a file that is not there yet"


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "results"
    whole = json.dumps(told(1)) + "\n"
    path.write_text(whole[:50])
    followed = Followed(path)
    assert followed.look() == []
    path.write_text(whole + whole[:20])
    assert followed.look() == [told(1)["id"]]
    path.write_text(whole + json.dumps(told(2)) + "\n")
    assert followed.look() == [told(1)["id"], told(2)["id"]]


def test_a_file_that_was_emptied_or_replaced_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "results"
    append(path, [told(1), told(2)])
    followed = Followed(path)
    followed.look()
    path.write_text("")
    followed.look()
    append(path, [told(3)])
    followed.look()
    path.replace(tmp_path / "elsewhere")
    append(path, [told(4)])
    assert followed.look() == [told(number)["id"] for number in (1, 2, 3, 4)]


def test_a_file_that_is_not_there_yet_is_no_end(tmp_path: Path) -> None:
    followed = Followed(tmp_path / "results")
    with pytest.raises(FileNotFoundError):
        followed.look()
    append(tmp_path / "results", [told(1)])
    assert followed.look() == [told(1)["id"]]


def test_something_without_lines_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "results"
    line = json.dumps(told(1)).encode()
    path.write_bytes(b"\0" * 2_500_000 + b"\n" + line + b"\n")
    lines = [line for read in ResultsFile(path).new_lines(Followed(path)) for line in read.lines]
    assert lines[-1] == line
    assert max(map(len, lines)) <= 1_000_000


def test_a_frame_without_an_answer_is_told_from_an_uncertain_one() -> None:
    [result] = results(unanswered(1))
    assert (result.outcome, result.score, result.is_anomalous) == ("unanswered", None, False)
    [result] = results(told(1, verdict="uncertain"))
    assert result.outcome == "uncertain"


def test_anomaly_types_are_told_largest_first_and_without_the_background() -> None:
    areas = {"background": 0.9, "dent": 0.01, "scratch": 0.0312, **{f"speck {n}": 0.001 for n in range(9)}}
    anomalies = [{"name": name, "total_percentage_area": area} for name, area in areas.items()]
    [result] = results(told(1, anomalies=anomalies))
    assert result.found.startswith("scratch 3.12 %, dent 1.00 %, speck 0 0.10 %")
    assert result.found.endswith(", and 6 more")


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        json.dumps(told(1, time="yesterday")).encode(),
        json.dumps(told(1, time="2026-11-21T12:00:00")).encode(),
        json.dumps(told(1, verdict="maybe")).encode(),
        json.dumps(told(1, anomaly_score=7)).encode(),
        json.dumps(told(1, id="x" * 300)).encode(),
        json.dumps(told(1, time="0001-01-01T00:00:00+14:00")).encode(),
        json.dumps(told(1, time="9999-12-31T23:59:59-12:00")).encode(),
        json.dumps(told(1, x="NESTED")).encode().replace(b'"NESTED"', b"[" * 100_000 + b"]" * 100_000),
    ],
)
def test_a_damaged_line_is_no_result(line: bytes) -> None:
    with pytest.raises(DamagedLine):
        read_line(line)


# What is kept


def test_results_are_counted_in_each_window_they_lie_in(kept: Store, database: sqlite3.Connection) -> None:
    ages = [60, 2 * HOUR, 2 * DAY, 5 * DAY, 10 * DAY, 20 * DAY, 60 * DAY, 150 * DAY, 300 * DAY]
    for number, age in enumerate(ages):
        keep(kept, told(number, time=iso(NOW - age)))
    counts = history.counts(database, only_line(database), NOW)
    assert [counts[window.key].all for window in WINDOWS] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_outcomes_and_the_anomaly_ratio_are_counted_apart(kept: Store, database: sqlite3.Connection) -> None:
    """An anomalous part that the camera's rules let pass is anomalous; a frame without an answer is neither."""
    passed = told(2, is_anomalous=True, anomaly_score=0.6, time=iso(NOW))
    keep(kept, told(1, time=iso(NOW)), passed, told(5, verdict="uncertain", time=iso(NOW)))
    keep(kept, rejected(3, time=iso(NOW)), unanswered(4) | {"time": iso(NOW)})
    counts = history.counts(database, only_line(database), NOW)["1h"]
    assert counts == Counts(passed=2, rejected=1, uncertain=1, unanswered=1, anomalous=2)
    assert (counts.all, counts.answered, counts.anomaly_ratio) == (5, 4, 0.5)


def test_a_result_that_is_told_twice_counts_once(kept: Store, database: sqlite3.Connection) -> None:
    assert keep(kept, told(1), told(2), now=time.time()) == 2
    assert keep(kept, told(2), told(3), now=time.time()) == 1
    assert history.counts(database, only_line(database), time.time())["6m"].all == 3


def test_cameras_and_models_are_told_apart(kept: Store, database: sqlite3.Connection) -> None:
    keep(kept, told(1, camera="b"), told(2, camera="a"), told(3, camera="a", model="Lids"), now=time.time())
    lines = history.lines(database)
    assert [(line.camera, line.model) for line in lines] == [("a", "Lids"), ("a", "Plates"), ("b", "Plates")]
    assert [seen.id for seen in history.last(database, lines[0], 5)] == [told(3)["id"]]


def test_the_store_stays_within_its_bounds(
    kept: Store, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old results and old tallies go; counts of half a year stay."""
    monkeypatch.setattr(store, "KEPT_RESULTS", 10)
    for hour in range(24 * 200):
        if hour % 60 == 0 or hour > 24 * 200 - 30:
            now = NOW + hour * HOUR
            keep(kept, told(hour, time=iso(now)), now=now)
    assert database.execute("SELECT count(*) FROM result").fetchone()[0] == 10
    for span, kept_for in KEPT_FOR.items():
        [[oldest]] = database.execute("SELECT min(start) FROM tally WHERE span = ?", (span,)).fetchall()
        assert now - kept_for < oldest
    assert history.counts(database, only_line(database), now)["6m"].all > 90


def test_the_last_results_are_those_that_came_last(kept: Store, database: sqlite3.Connection) -> None:
    """Whatever a clock that was set back says of their time."""
    keep(kept, told(1, time=iso(NOW + DAY)), rejected(2, time=iso(NOW)), told(3, time=iso(NOW - 5)))
    line = only_line(database)
    assert [seen.id[-1] for seen in history.last(database, line, 2)] == ["3", "2"]
    assert [seen.id[-1] for seen in history.last_to_look_at(database, line, 5)] == ["2"]


def test_a_damaged_store_is_put_aside_and_read_anew_from_the_files(tmp_path: Path) -> None:
    append(tmp_path / "results", [told(number) for number in range(400)])
    count_after_following(tmp_path, 400)
    content = bytearray((tmp_path / "store").read_bytes())
    content[4096:-4096] = os.urandom(len(content) - 8192)
    (tmp_path / "store").write_bytes(content)
    append(tmp_path / "results", [told(400)])
    count_after_following(tmp_path, 401)
    assert (tmp_path / "store.damaged").exists()


@pytest.mark.parametrize("content", [b"no database at all, but a text of some length" * 50, b"SQLite format 3\0"])
def test_a_store_that_is_no_database_is_put_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store").write_bytes(content)
    append(tmp_path / "results", [told(1)])
    count_after_following(tmp_path, 1)
    assert (tmp_path / "store.damaged").read_bytes() == content


def test_a_store_of_another_version_is_put_aside(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "store") as old:
        old.execute("CREATE TABLE result (score REAL)")
        old.execute("PRAGMA user_version = 7")
    old.close()
    with pytest.raises(StoreUnusable, match=r"store\.version-7 .*of version 7, and this program's is 1"):
        Store(tmp_path / "store")
    append(tmp_path / "results", [told(1)])
    count_after_following(tmp_path, 1)


def test_an_error_that_nobody_foresaw_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "AGAIN_AFTER_S", 0.05)
    append(tmp_path / "results", [told(1)])
    with monkeypatch.context() as broken:
        broken.setattr(following, "read_line", {}.pop)
        thread = Following((tmp_path / "results",), tmp_path / "store")
        thread.start()
        wait_for("what went wrong", lambda: thread.problems != [])
    assert thread.problems[0].startswith("results cannot be read: KeyError(")
    wait_for("the result", lambda: count_in(tmp_path / "store") == 1)
    wait_for("its end", lambda: thread.problems == [])
    thread.stop(5)


def count_after_following(folder: Path, expected: int) -> None:
    """Follows `results` into `store` until so many are there; then there must not be more."""
    thread = Following((folder / "results",), folder / "store")
    thread.start()
    try:
        wait_for(f"{expected} results", lambda: count_in(folder / "store") == expected)
    finally:
        thread.stop(5)
    assert count_in(folder / "store") == expected


def count_in(path: Path) -> int:
    try:
        with open_for_reading(path) as database:
            [line] = history.lines(database)
            return history.counts(database, line, time.time())["6m"].all
    except (store.NotYetMade, sqlite3.Error, ValueError):
        return 0


# What is drawn


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.key)
def test_an_outlier_shows_in_the_score_history_however_long_the_window(
    kept: Store, database: sqlite3.Connection, window: Any
) -> None:
    normal = [told(n, time=iso(NOW - window.length * n / 2000), anomaly_score=0.2) for n in range(2000)]
    outlier = told(9999, time=iso(NOW - window.length / 2), anomaly_score=0.49)
    keep(kept, *normal, outlier, rejected(9998, time=iso(NOW - window.length / 3), anomaly_score=0.97))
    scores = history.scores(database, only_line(database), window, NOW)
    assert len(scores) <= 370
    assert max(point.below[1] for point in scores if point.below) == 0.49
    assert max(point.above[1] for point in scores if point.above) == 0.97
    chart = charts.score_chart(scores, Axis(window, NOW, timezone.utc))
    assert re.search(r"V510(M|$)", chart.below)
    assert re.fullmatch(r"M\d+ 30V14", chart.above), "one value is a dot"
    assert chart.threshold.startswith("M0 500H")
    assert chart.last_threshold == 0.5


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.key)
def test_bars_add_up_to_the_windows_counts(kept: Store, database: sqlite3.Connection, window: Any) -> None:
    records = [told(n, time=iso(NOW - window.length * n / 500)) for n in range(500)]
    keep(kept, *records, rejected(9999, time=iso(NOW - 1)))
    line = only_line(database)
    bars = history.bars(database, line, window, NOW, offset=int(5.5 * HOUR))
    assert sum(bar.all for bar in bars.values()) == history.counts(database, line, NOW)[window.key].all
    assert 40 <= len(bars) <= 95
    chart = charts.counts_chart(bars, Axis(window, NOW, timezone(timedelta(hours=5.5))))
    for bar in chart.bars:
        assert all(part.x >= 0 and part.x + part.width <= 100.01 and part.height > 0 for part in bar.parts)
        assert bar.parts[-1].kind == "pass"
    assert 3 <= len(chart.times) <= 8


def test_results_of_a_clock_that_was_ahead_wait_for_their_time(kept: Store, database: sqlite3.Connection) -> None:
    keep(kept, told(1, time=iso(NOW)), told(2, time=iso(NOW + DAY)))
    line = only_line(database)
    assert history.counts(database, line, NOW)["1w"].all == 1
    assert history.counts(database, line, NOW + DAY)["1w"].all == 2
    [bar] = charts.counts_chart(
        history.bars(database, line, WINDOW_OF["1w"], NOW, 0), Axis(WINDOW_OF["1w"], NOW, timezone.utc)
    ).bars
    assert bar.parts[0].x + bar.parts[0].width <= 100


def test_bars_of_a_day_begin_at_the_readers_midnight(kept: Store, database: sqlite3.Connection) -> None:
    keep(kept, told(1, time=iso(NOW - 11 * HOUR)), told(2, time=iso(NOW - 13 * HOUR)))  # 02:00 and 00:00 in Berlin
    berlin = timedelta(hours=1)
    bars = history.bars(database, only_line(database), WINDOW_OF["3m"], NOW, int(berlin.total_seconds()))
    axis = Axis(WINDOW_OF["3m"], NOW, timezone(berlin))
    assert [axis.span_words(start, DAY) for start in bars] == ["Sat 21 Nov"]
    assert bars == {int(NOW - 13 * HOUR): Counts(2, 0, 0, 0, 0)}


def test_the_ratio_has_an_axis_that_fits(kept: Store) -> None:
    axis = Axis(WINDOW_OF["1h"], NOW, timezone.utc)
    start = int(NOW) - 600
    chart = charts.ratio_chart({start: Counts(97, 3, 0, 0, 3), start + 60: Counts(0, 0, 0, 4, 0)}, axis)
    assert [level.words for level in chart.levels] == ["5 %", "2.5 %", "0 %"]
    [bar] = chart.bars
    assert bar.parts[0].height == 60.0
    assert "3.0 % anomalous, 97 pass, 3 reject, 0 uncertain" in bar.words


@pytest.mark.parametrize(
    ("ratio", "said"), [(None, "—"), (0, "0.0 %"), (0.0004, "0.04 %"), (0.0213, "2.1 %"), (1, "100.0 %")]
)
def test_ratios_are_told_as_people_read_them(ratio: float | None, said: str) -> None:
    assert words.per_cent(ratio) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (5399, "90 min"),
        (5400, "2 h"),
        (47 * HOUR, "47 h"),
        (9 * DAY, "9 days"),
    ],
)
def test_ages_are_told_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert words.age(seconds) == f"{said} ago"


def test_times_have_their_day_where_it_is_another() -> None:
    berlin = timezone(timedelta(hours=1))
    assert words.time_of(NOW, NOW, berlin) == "13:00:00"
    assert words.time_of(NOW - 13 * HOUR - 1, NOW, berlin) == "20 Nov 23:59:59"


def test_what_is_written_can_be_read_on_its_ground_by_day_and_by_night() -> None:
    """Contrast as WCAG 2.2 computes it (relative luminance), at least 4.5 for text."""
    css = (ROOT / "client_examples/live_view/dashboard/static/style.css").read_text()
    day, night = (dict(re.findall(r"--([a-z-]+): #([0-9a-f]{6})", block)) for block in css.split("@media", 2)[:2])
    for colours in (day, night):
        pairs = [("on", ground) for ground in ("pass", "reject", "uncertain", "unanswered")]
        pairs += [(ink, ground) for ink in ("ink", "quiet", "link", "pass", "reject") for ground in ("card", "paper")]
        pairs += [("ink", "idle"), ("warning-ink", "warning"), ("uncertain", "card")]
        for ink, ground in pairs:
            assert contrast(colours[ink], colours[ground]) >= 4.5, f"{ink} on {ground}"


def contrast(one: str, other: str) -> float:
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    values = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


# Pictures and settings


def test_pictures_are_found_in_any_of_the_folders_and_nowhere_else(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "b/part-1-reject.jpg").write_bytes(b"picture")
    (tmp_path / "b/link-reject.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "b/folder-reject.jpg").mkdir()
    os.mkfifo(tmp_path / "b/pipe-reject.jpg")
    pictures = Pictures((str(tmp_path / "a"), str(tmp_path / "b")))
    assert pictures.has("part-1", "reject")
    assert pictures.read("part-1", "reject") == b"picture"
    (tmp_path / "b/sub").mkdir()
    (tmp_path / "b-reject.jpg").write_bytes(b"secret")
    for name in ("link", "folder", "pipe", "gone", "../b", "sub/../part-1", str(tmp_path / "b"), "part-1\0", ".", ""):
        assert not pictures.has(name, "reject"), name
        assert pictures.read(name, "reject") is None, name


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "results: name the file that the camera client writes"),
        ({"results": []}, "results: name the file that the camera client writes"),
        ({"results": ["r"], "port": 70000}, "port: Expected `int` <= 65535"),
        ({"results": ["r"], "prot": 1}, "settings: Object contains unknown field `prot`"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WrongSetting, match=re.escape(sentence)):
        settings_from(values)


@pytest.mark.parametrize(
    ("host", "is_open"), [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("pc", True)]
)
def test_the_page_is_known_to_be_open_to_others(host: str, is_open: bool) -> None:
    assert settings_from({"results": "r", "host": host}).is_open_to_others == is_open


def test_the_page_is_at_the_port_that_is_asked_for_or_a_free_one() -> None:
    anywhere = settings_from({"results": "r", "port": 0})
    with open_door(anywhere) as door:
        port = door.getsockname()[1]
        assert address_of(anywhere, door) == f"http://127.0.0.1:{port}/"
        assert address_of(settings_from({"results": "r", "host": "::1"}), door) == f"http://[::1]:{port}/"
    with open_door(settings_from({"results": "r", "port": port})) as door:
        assert door.getsockname()[1] == port


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WrongSetting, match=f"port: 127.0.0.1:{port}: Address already in use; choose another"):
            open_door(settings_from({"results": "r", "port": port}))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])  # RFC 5737: nobody has it
def test_a_host_that_is_none_of_this_device_is_told(host: str) -> None:
    with pytest.raises(WrongSetting, match=f"host: {re.escape(host)} is no address of this device"):
        open_door(settings_from({"results": "r", "host": host}))


def test_the_readme_has_a_row_for_each_setting() -> None:
    table = (ROOT / "client_examples/live_view/README.md").read_text().split("## Settings")[1].split("\n\n")[2]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(Settings.__struct_fields__)
