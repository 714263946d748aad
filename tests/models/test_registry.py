"""The registry: records are replaced whole, live while their package is there, and watched."""

import errno
import json
import logging
import os
import queue
import threading

import pytest

from agent.errors import BadComponentName
from agent.models import small_files
from agent.models.device_threshold import DeviceThreshold, IgnoredThreshold, write_threshold
from agent.models.registry import (
    Record,
    Registry,
    RegistryWatch,
    check_component_name,
    remove_record,
    write_record,
)
from agent.models.small_files import MAX_BYTES
from tests.support.agent_process import wait_for

PATIENCE = 10.0
"""Seconds after which something that should have happened has not."""


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "registry"


@pytest.fixture
def package(tmp_path):
    path = tmp_path / "package"
    path.mkdir()
    return path


def record(component, package, version="1.0.0"):
    return Record(component, version, str(package))


# --- names

BAD_NAMES = [
    "",
    ".",
    "..",
    ".hidden",
    "a/b",
    "/a",
    "a\\b",
    "a\0",
    "\0",
    "a\n",
    "a\nERROR forged line",
    "a\r",
    "a b",
    "%s{}",
    "$HOME",
    "a;b",
    "m\u043edel",  # a Cyrillic o
    "\uff4dodel",
    "model\u202e",
    "\u0661",
    "model\ud800",
    "x" * 129,
    "x" * 1_000_000,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_not_plain_is_refused_in_one_short_line(directory, package, name):
    for ask in (
        lambda: check_component_name(name),
        lambda: write_record(directory, record(name, package)),
        lambda: remove_record(directory, name),
    ):
        with pytest.raises(BadComponentName) as refusal:
            ask()
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 400
    assert not directory.exists()


@pytest.mark.parametrize("name", ["a", "0", "-", "_", "com.example.Cookies", "a..b", "a.json", "x" * 128])
def test_a_plain_name_is_taken_as_it_is(directory, package, name):
    write_record(directory, record(name, package))
    assert Registry(directory).records() == {name: record(name, package)}
    remove_record(directory, name)
    assert Registry(directory).records() == {}


# --- records


def test_records_come_in_the_order_of_names(directory, package):
    for name in ("b", "a", "c"):
        write_record(directory, record(name, package))
    assert list(Registry(directory).records()) == ["a", "b", "c"]


def test_a_registry_that_is_not_there_is_empty(directory):
    assert Registry(directory).records() == {}


def test_a_record_is_replaced_whole_and_nothing_else_is_left(directory, package):
    write_record(directory, record("a", package))
    before = (directory / "a.json").stat().st_ino
    with (directory / "a.json").open("rb") as reader:  # has the old one open
        write_record(directory, record("a", package, version="2.0.0"))
        assert json.load(reader)["version"] == "1.0.0"
    assert (directory / "a.json").stat().st_ino != before
    assert json.loads((directory / "a.json").read_text())["version"] == "2.0.0"
    assert [path.name for path in directory.iterdir()] == ["a.json"]


def test_a_record_that_cannot_be_written_leaves_the_old_one(directory, package, monkeypatch):
    write_record(directory, record("a", package))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_record(directory, record("a", package, version="2.0.0"))
    assert Registry(directory).records()["a"].version == "1.0.0"
    assert [path.name for path in directory.iterdir()] == ["a.json"]


def test_readers_of_a_record_that_is_rewritten_all_the_time_never_see_half_of_one(directory, package, caplog):
    versions = ["1.0.0", "2" * 90]
    write_record(directory, record("a", package, versions[0]))
    stop = threading.Event()

    def rewrite():
        count = 0
        while not stop.is_set():
            count += 1
            write_record(directory, record("a", package, versions[count % 2]))

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        for _ in range(300):
            assert Registry(directory).records()["a"].version in versions
    finally:
        stop.set()
        thread.join()
    assert caplog.records == []


def test_a_record_lives_while_its_package_is_there(directory, package):
    write_record(directory, record("a", package))
    registry = Registry(directory)
    assert list(registry.records()) == ["a"]
    package.rename(package.with_name("away"))
    assert registry.records() == {}
    package.write_text("no folder")
    assert registry.records() == {}
    package.unlink()
    package.with_name("away").rename(package)
    assert list(registry.records()) == ["a"]


def test_removing_a_record_that_is_not_there_says_so(directory):
    directory.mkdir()
    with pytest.raises(FileNotFoundError):
        remove_record(directory, "a")


# --- what is no record

MALFORMED = {
    "empty": b"",
    "half": b'{"component": "bad", "vers',
    "not an object": b"[]",
    "not UTF-8": b'{"component": "bad\xff", "version": "1", "path": "/"}',
    "deep": b"[" * 60_000,
    "too long": b" " * MAX_BYTES + b"{}",
    "missing field": {"component": "bad", "path": "/"},
    "unknown field": {"component": "bad", "version": "1", "path": "/", "exec": "rm"},
    "wrong type": {"component": "bad", "version": 1, "path": "/"},
    "endless version": {"component": "bad", "version": "1" * 101, "path": "/"},
    "another component": {"component": "good", "version": "1", "path": "/"},
    "relative path": {"component": "bad", "version": "1", "path": "package"},
    "empty path": {"component": "bad", "version": "1", "path": ""},
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=list(MALFORMED))
def test_what_is_no_record_is_ignored_with_one_line_in_the_log_and_the_others_live(directory, package, caplog, content):
    write_record(directory, record("good", package))
    (directory / "bad.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    registry = Registry(directory)
    for _ in range(3):  # an unchanged file is not read, and not complained of, again
        assert registry.records() == {"good": record("good", package)}
    (line,) = (entry.getMessage() for entry in caplog.records)
    assert line.startswith("registry record 'bad.json' is ignored: ")
    assert line.isprintable()


@pytest.mark.parametrize("name", ["..json", ".json", "a b.json", "a\nERROR forged.json", "x%s.json", "m\u043edel.json"])
def test_a_file_whose_name_names_no_component_is_ignored_and_forges_no_line(directory, package, caplog, name):
    directory.mkdir()
    for component in (name.removesuffix(".json"), "good"):
        (directory / name).write_text(
            json.dumps({"component": component, "version": "1", "path": str(package)}, ensure_ascii=False)
        )
        assert Registry(directory).records() == {}
    assert caplog.records
    assert all(entry.getMessage().isprintable() for entry in caplog.records)


def test_files_that_are_no_json_are_not_looked_at(directory, package, caplog):
    write_record(directory, record("good", package))
    for name in ("README", "good.json.bak", ".good.json.123", "good.yaml"):
        (directory / name).write_text("{")
    (directory / "folder.json").mkdir()
    (directory / "link.json").symlink_to("nowhere")
    assert list(Registry(directory).records()) == ["good"]


def test_a_path_that_no_file_system_holds_is_no_package(directory, package):
    write_record(directory, record("good", package))
    write_record(directory, record("long", "/" + "x" * 5000))
    write_record(directory, record("nul", "/a\0b"))
    assert list(Registry(directory).records()) == ["good"]


def test_a_pipe_in_the_registry_does_not_stop_the_agent(directory, package):
    write_record(directory, record("good", package))
    os.mkfifo(directory / "pipe.json")
    answer = queue.Queue()
    thread = threading.Thread(target=lambda: answer.put(Registry(directory).records()), daemon=True)
    thread.start()
    try:
        assert list(answer.get(timeout=2)) == ["good"]
    finally:
        # Where it waits for a writer after all, one comes and goes.
        os.close(os.open(directory / "pipe.json", os.O_RDWR | os.O_NONBLOCK))
        thread.join(PATIENCE)


def test_a_record_that_has_not_changed_is_not_read_again(directory, package, monkeypatch):
    write_record(directory, record("a", package))
    write_record(directory, record("b", package))
    read, content_of = [], small_files._content
    monkeypatch.setattr(small_files, "_content", lambda path: read.append(path.stem) or content_of(path))
    registry = Registry(directory)
    registry.records()
    write_record(directory, record("b", package, version="2.0.0"))
    assert registry.records()["b"].version == "2.0.0"
    assert registry.records()["b"].version == "2.0.0"
    assert read == ["a", "b", "b"]


def test_a_thousand_bad_records_do_not_hide_the_good_one(directory, package, caplog):
    write_record(directory, record("good", package))
    for index in range(999):
        (directory / f"bad{index}.json").write_bytes(b"{")
    assert list(Registry(directory).records()) == ["good"]
    assert len(caplog.records) == 999


# --- thresholds beside the records


def threshold(component, value=0.62, version="1.0.0"):
    return DeviceThreshold(component, version, value, "2026-01-01T12:00:00Z", "anna")


def test_thresholds_come_by_component_and_records_stay_what_deployments_wrote(directory, package):
    write_record(directory, record("a", package))
    before = Registry(directory).records()
    write_threshold(directory, threshold("a"))
    write_threshold(directory, threshold("nobody"))
    registry = Registry(directory)
    assert registry.thresholds() == {"a": threshold("a"), "nobody": threshold("nobody")}
    assert registry.records() == before


def test_a_registry_that_is_not_there_has_no_thresholds(directory):
    assert Registry(directory).thresholds() == {}


@pytest.mark.parametrize("content", [b"", b"{", b" " * MAX_BYTES + b"{}", b'{"threshold": 0.5}'])
def test_what_is_no_threshold_is_there_with_its_reason(directory, package, content):
    write_record(directory, record("a", package))
    (directory / "a.threshold").write_bytes(content)
    assert isinstance(Registry(directory).thresholds()["a"], IgnoredThreshold)
    assert list(Registry(directory).records()) == ["a"]


def test_the_log_of_changes_is_no_threshold(directory, package):
    directory.mkdir()
    (directory / "a.threshold-log").write_text("{}")
    os.mkfifo(directory / "b.threshold")
    (directory / "c.threshold").mkdir()
    assert Registry(directory).thresholds() == {}


def test_a_threshold_that_cannot_be_read_for_a_moment_stays_in_force(directory, monkeypatch):
    directory.mkdir()
    write_threshold(directory, threshold("a"))
    registry = Registry(directory)
    known = registry.thresholds()

    def away(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.stat", away)
    assert registry.thresholds() == known
    assert Registry(directory).thresholds() == {"a": IgnoredThreshold("it cannot be read: Input/output error")}


# --- the watch


def records_into(reports):
    return lambda records, thresholds: reports.put(records)


@pytest.fixture
def watched(directory):
    """Reports of a watch as a queue; the watch ends with the test."""
    reports = queue.Queue()
    watch = RegistryWatch(Registry(directory), records_into(reports), interval=0.005)
    watch.start()
    yield reports
    watch.stop()
    assert not watch._thread.is_alive()


def next_report(reports):
    return {component: found.version for component, found in reports.get(timeout=PATIENCE).items()}


def test_the_watch_reports_what_is_there_at_the_start_before_start_returns(directory, package):
    write_record(directory, record("a", package))
    reports = queue.Queue()
    watch = RegistryWatch(Registry(directory), records_into(reports), interval=3600)
    watch.start()
    assert next_report(reports) == {"a": "1.0.0"}
    assert reports.empty()
    watch.stop()  # at once, whatever the interval


def test_the_watch_reports_what_appears_changes_and_disappears(watched, directory, package):
    assert next_report(watched) == {}
    write_record(directory, record("a", package))
    assert next_report(watched) == {"a": "1.0.0"}
    write_record(directory, record("a", package, version="2.0.0"))
    assert next_report(watched) == {"a": "2.0.0"}
    remove_record(directory, "a")
    assert next_report(watched) == {}


def test_the_watch_reports_a_threshold_that_appears_changes_and_disappears(directory, package):
    write_record(directory, record("a", package))
    reports = queue.Queue()
    watch = RegistryWatch(Registry(directory), lambda *report: reports.put(report), interval=0.005)
    watch.start()
    try:
        records = {"a": record("a", package)}
        assert reports.get(timeout=PATIENCE) == (records, {})
        for value in (0.62, 0.7):
            write_threshold(directory, threshold("a", value))
            assert reports.get(timeout=PATIENCE) == (records, {"a": threshold("a", value)})
        (directory / "a.threshold").unlink()
        assert reports.get(timeout=PATIENCE) == (records, {})
    finally:
        watch.stop()


def test_the_watch_reports_a_package_that_disappears_and_comes_back(watched, directory, package):
    next_report(watched)
    write_record(directory, record("a", package))
    assert next_report(watched) == {"a": "1.0.0"}
    package.rmdir()
    assert next_report(watched) == {}
    package.mkdir()
    assert next_report(watched) == {"a": "1.0.0"}


def test_the_watch_says_nothing_while_nothing_changes(directory, package):
    write_record(directory, record("a", package))
    looks = threading.Semaphore(0)

    class Counted(Registry):
        def records(self):
            found = super().records()
            looks.release()
            return found

    reports = queue.Queue()
    watch = RegistryWatch(Counted(directory), records_into(reports), interval=0.001)
    watch.start()
    for _ in range(6):
        assert looks.acquire(timeout=PATIENCE)
    watch.stop()
    assert reports.qsize() == 1


def test_the_watch_goes_on_after_a_failure(directory, package, caplog):
    reports = queue.Queue()

    def stumble(records, thresholds):
        reports.put(records)
        if list(records) == ["a"]:
            raise RuntimeError("the fleet stumbled")

    watch = RegistryWatch(Registry(directory), stumble, interval=0.005)
    watch.start()
    assert next_report(reports) == {}
    write_record(directory, record("a", package))
    for _ in range(3):
        assert next_report(reports) == {"a": "1.0.0"}
    write_record(directory, record("b", package))
    while (report := next_report(reports)) == {"a": "1.0.0"}:  # told again and again, since it stumbles over it
        pass
    assert report == {"a": "1.0.0", "b": "1.0.0"}
    watch.stop()
    assert [entry.levelno for entry in caplog.records] == [logging.ERROR]
    assert "trying again" in caplog.text


def test_a_registry_that_cannot_be_looked_at_is_not_an_empty_one(tmp_path, caplog):
    """No descriptor left, a network mount that is away: models go on, and come up again in their time."""

    class Away(Registry):
        away = False

        def records(self):
            if self.away:
                raise OSError(24, "Too many open files")
            return super().records()

    (tmp_path / "package").mkdir()
    write_record(tmp_path, Record("a", "1.0.0", str(tmp_path / "package")))
    registry, reports = Away(tmp_path), []
    watch = RegistryWatch(registry, lambda records, thresholds: reports.append(records), 0.001)
    watch.start()
    try:
        registry.away = True
        wait_for("the complaint", lambda: "Too many open files" in caplog.text)
        write_record(tmp_path, Record("b", "1.0.0", str(tmp_path / "package")))
        registry.away = False
        wait_for("the next look", lambda: len(reports) == 2)
    finally:
        watch.stop()
    assert [sorted(report) for report in reports] == [["a"], ["a", "b"]]
    assert caplog.text.count("Too many open files") == 1


def test_a_record_that_stays_unreadable_is_one_line_and_is_read_once_it_can_be(directory, package, caplog, monkeypatch):
    write_record(directory, record("a", package))
    registry = Registry(directory)

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(small_files, "_content", refused)
        assert [registry.records() for _ in range(3)] == [{}] * 3
        assert caplog.messages == ["registry record 'a.json' cannot be read: Permission denied"]
    assert list(registry.records()) == ["a"]


def test_a_path_that_is_no_directory_is_no_empty_registry(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Registry(tmp_path / "file").records()


def test_a_record_that_cannot_be_read_for_a_moment_stays_in_force(tmp_path, monkeypatch):
    (tmp_path / "package").mkdir()
    write_record(tmp_path, Record("a", "1.0.0", str(tmp_path / "package")))
    registry = Registry(tmp_path)
    known = registry.records()

    def away(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.stat", away)
    assert registry.records() == known


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_registry_that_everybody_may_write_is_not_followed_and_what_was_registered_stays(
    watched, directory, package, caplog, mode
):
    assert next_report(watched) == {}
    write_record(directory, record("a", package))
    assert next_report(watched) == {"a": "1.0.0"}
    directory.chmod(mode)
    write_record(directory, record("smuggled", package))
    wait_for("the line", lambda: f"every user may write to {directory}" in caplog.text)
    assert watched.empty()
    directory.chmod(0o775)  # a group that is shared with models is meant to write
    assert next_report(watched) == {"a": "1.0.0", "smuggled": "1.0.0"}
    assert caplog.text.count("every user may write") == 1
