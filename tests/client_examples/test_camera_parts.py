"""Parts of the camera client, each alone: the ring of frames, triggers, what waits on disk, budgets, settings."""

from __future__ import annotations

import errno
import json
import platform
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from camera_client import pace as pace_module
from camera_client import settings as camera_settings
from camera_client import triggers
from camera_client.disk_budget import DiskBudget, LargerThanTheBudget
from camera_client.frame_ring import FrameRing, Slot
from camera_client.geometry import CropOutside, picture_of
from camera_client.inspection import LARGEST_MESSAGE, Decision, Inspection
from camera_client.pace import Pace
from camera_client.settings import Broker, Capture, Crop, JsonLines, Part, Picture, Source, WrongSetting, settings_from
from camera_client.sinks import Sink, Sinks
from camera_client.sinks import outbox as outbox_module
from camera_client.sinks.capture import CaptureWriter
from camera_client.sinks.json_lines import JsonLinesWriter
from camera_client.sinks.outbox import Outbox
from camera_client.sinks.queued import QueuedSink

from tests.support.agent_process import PATIENCE, wait_for
from tests.support.checkout import ROOT

CAMERA = {"model": "parts", "source": {"address": "camera:/dev/video0"}}
FOLDER = {"model": "parts", "source": {"address": "folder:in"}}


class Segment:
    """Memory of this process in place of a shared segment."""

    def room(self, height: int, width: int) -> np.ndarray:
        return np.empty((height, width, 3), np.uint8)


def ring_of(slots: int, skips_frames: bool = True) -> FrameRing:
    return FrameRing([Segment() for _ in range(slots)], skips_frames)


def offer(ring: FrameRing, value: int) -> None:
    ring.offer(lambda slot: slot.place_for(2, 2).fill(value), captured_at=0.0)


def value_of(slot: Slot) -> int:
    assert slot.pixels is not None
    return int(slot.pixels[0, 0, 0])


def inspection(number: int = 1, types: int = 0) -> Inspection:
    found = [
        SimpleNamespace(name=f"type-{index}", total_percentage_area=index / 1000, hex_color="#112233")
        for index in range(types)
    ]
    result: Any = SimpleNamespace(
        is_anomalous=True,
        confidence=0.9,
        anomaly_score=0.9,
        anomaly_threshold=0.5,
        anomalies=found,
        milliseconds=1.0,
        details={},
    )
    now = datetime.now(timezone.utc)
    return Inspection(
        f"id-{number}", "camera", "parts", now, 0.0, "", 64, 64, Decision("reject", "anomalous"), result, None
    )


def test_a_newer_frame_takes_the_place_of_one_that_waits() -> None:
    ring = ring_of(3)
    for value in (1, 2, 3):
        offer(ring, value)
    slot = ring.take()
    assert slot is not None
    assert (value_of(slot), slot.number) == (3, 3)
    assert (ring.offered, ring.replaced) == (3, 2)


def test_a_frame_in_hand_is_never_written_over() -> None:
    ring = ring_of(3)
    offer(ring, 1)
    held = ring.take()
    for value in range(2, 10):
        offer(ring, value)
    assert held is not None
    assert value_of(held) == 1


def test_where_no_frame_is_skipped_the_next_one_waits_until_the_last_is_taken() -> None:
    ring = ring_of(3, skips_frames=False)
    values = []

    def offer_all() -> None:
        for value in range(5):
            offer(ring, value)
        ring.end()

    thread = threading.Thread(target=offer_all)
    thread.start()
    while (slot := ring.take()) is not None:
        values.append(value_of(slot))
        ring.give_back(slot)
    thread.join()
    assert values == [0, 1, 2, 3, 4]
    assert ring.replaced == 0


def test_the_last_frame_of_a_recording_is_taken_and_that_of_a_stop_counted() -> None:
    ended, stopped = ring_of(3), ring_of(3)
    offer(ended, 1)
    ended.end()
    assert ended.take() is not None
    assert ended.take() is None
    offer(stopped, 1)
    stopped.stop()
    assert stopped.take() is None
    assert stopped.replaced == 1


def test_a_slot_comes_back_when_writing_to_it_fails() -> None:
    ring = ring_of(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken frame"):
            ring.offer(lambda slot: (_ for _ in ()).throw(ValueError("broken frame")), captured_at=0.0)
    offer(ring, 7)
    slot = ring.take()
    assert slot is not None
    assert value_of(slot) == 7
    assert ring.offered == 1


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_pictures_are_turned_clockwise(turn: int) -> None:
    frame = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    picture = picture_of(frame, Picture(rotate=turn))
    assert (picture == np.rot90(frame, k=(360 - turn) // 90)).all()
    assert np.shares_memory(picture, frame)


def test_a_crop_beyond_the_frame_is_refused() -> None:
    with pytest.raises(CropOutside, match="ends at 12 x 8, but frames are 10 x 10"):
        picture_of(np.zeros((10, 10, 3), np.uint8), Picture(crop=Crop(x=2, y=0, width=10, height=8)))


def test_an_interval_lets_one_frame_through_and_keeps_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(triggers.time, "monotonic", lambda: now)
    interval = triggers.Interval(every_ms=1000)
    due = []
    for step in range(50):
        now = 100 + step * 0.15
        if interval.is_due():
            due.append(step)
    assert due == [0, 7, 14, 20, 27, 34, 40, 47], "the first frame of each second"


def test_a_file_that_cannot_be_removed_triggers_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "now").mkdir()
    trigger = triggers.OnFile(tmp_path / "now")
    assert not trigger.is_due() and not trigger.is_due()
    [said] = caplog.messages
    assert said.startswith(f"{tmp_path / 'now'} cannot be removed, so nothing is inspected: ")


def test_each_message_finds_one_frame_and_is_forgotten_when_none_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(triggers.time, "monotonic", lambda: now)
    trigger = triggers.OnMessage(valid_ms=500)
    trigger.came()
    trigger.came()
    assert [trigger.is_due() for _ in range(3)] == [True, True, False]
    trigger.came()
    now += 0.6
    assert not trigger.is_due()
    assert trigger.missed == 1
    trigger.came()
    now += 0.6
    trigger.came()
    assert trigger.missed == 2, "also while no frame asks"


def test_messages_leave_in_the_order_they_came_whatever_is_on_disk(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "box" / "o.sqlite", most_waiting=100)
    for number in range(3):
        outbox.add(b"%d" % number)
    outbox.to_disk()
    for number in range(3, 6):
        outbox.add(b"%d" % number)
    came = []
    while messages := outbox.first(2, timeout=0):
        came += [message.payload for message in messages]
        outbox.sent(messages)
    assert came == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert len(outbox) == outbox.dropped == 0


def test_what_was_written_to_disk_is_there_for_the_next_run(tmp_path: Path) -> None:
    first = Outbox(tmp_path / "o.sqlite", most_waiting=100)
    for number in range(4):
        first.add(b"%d" % number)
    first.sent(first.first(1, timeout=0))
    first.to_disk()
    second = Outbox(tmp_path / "o.sqlite", most_waiting=100)
    second.add(b"new")
    second.to_disk()
    assert [message.payload for message in second.first(9, timeout=0)] == [b"1", b"2", b"3", b"new"]


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_oldest_messages_go_beyond_the_bound_and_are_counted(tmp_path: Path, on_disk: bool) -> None:
    outbox = Outbox(tmp_path / "o.sqlite", most_waiting=3)
    for number in range(5):
        outbox.add(b"%d" % number)
        if on_disk:
            outbox.to_disk()
    assert [message.payload for message in outbox.first(9, timeout=0)] == [b"2", b"3", b"4"]
    assert outbox.dropped == 2


def test_messages_taken_before_they_were_written_to_disk_are_not_sent_twice(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite", most_waiting=9)
    for number in range(3):
        outbox.add(b"%d" % number)
    taken = outbox.first(2, timeout=0)
    outbox.to_disk()
    outbox.sent(taken)
    assert [message.payload for message in outbox.first(9, timeout=0)] == [b"2"]


def test_a_disk_that_is_mounted_late_brings_the_messages_of_the_run_before(tmp_path: Path) -> None:
    before = Outbox(tmp_path / "away" / "o.sqlite", most_waiting=9)
    before.add(b"before")
    before.to_disk()
    outbox = Outbox(tmp_path / "box" / "o.sqlite", most_waiting=9)
    outbox.add(b"new")
    (tmp_path / "away").rename(tmp_path / "box")
    outbox.to_disk()
    came = [message.payload for message in Outbox(tmp_path / "box" / "o.sqlite", most_waiting=9).first(9, timeout=0)]
    assert came == [b"before", b"new"]


def test_messages_that_fill_the_memory_go_to_disk_before_they_have_waited(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite", most_waiting=3 * outbox_module.MOST_IN_MEMORY)
    for number in range(2 * outbox_module.MOST_IN_MEMORY):
        outbox.add(b"%d" % number)
        if number % 100 == 0:
            outbox.keep()
    assert len(outbox) == 2 * outbox_module.MOST_IN_MEMORY
    assert outbox.dropped == 0


def test_without_room_on_disk_messages_stay_in_memory(tmp_path: Path) -> None:
    (tmp_path / "box").write_text("a file where the folder should be")
    outbox = Outbox(tmp_path / "box" / "o.sqlite", most_waiting=3)
    for number in range(4):
        outbox.add(b"%d" % number)
        outbox.to_disk()
    assert [message.payload for message in outbox.first(9, timeout=0)] == [b"1", b"2", b"3"]
    assert outbox.dropped == 1


def test_a_damaged_file_is_put_aside_and_messages_are_kept_in_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "o.sqlite").write_bytes(b"what a power failure has left" * 100)
    outbox = Outbox(tmp_path / "o.sqlite", most_waiting=9)
    outbox.add(b"new")
    outbox.to_disk()
    assert [message.payload for message in Outbox(tmp_path / "o.sqlite", 9).first(9, timeout=0)] == [b"new"]
    assert (tmp_path / "o.damaged").exists()


@pytest.mark.parametrize("what_happens", ["is damaged", "is removed"])
def test_new_messages_leave_when_the_file_on_disk_is_damaged_or_removed(tmp_path: Path, what_happens: str) -> None:
    path = tmp_path / "o.sqlite"
    outbox = Outbox(path, most_waiting=9)
    outbox.add(b"lost")
    outbox.to_disk()
    path.unlink()
    if what_happens == "is damaged":
        path.write_bytes(b"what a power failure has left" * 100)
    outbox.add(b"new")
    came: list[bytes] = []
    while not came and len(outbox):
        came = [message.payload for message in outbox.first(9, timeout=0)]
    assert came == [b"new"]
    assert outbox.dropped == 1


def test_a_message_that_was_dropped_while_it_was_on_its_way_counts_as_sent(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite", most_waiting=2)
    outbox.add(b"0")
    on_the_way = outbox.first(9, timeout=0)
    outbox.add(b"1")
    outbox.add(b"2")
    assert (outbox.acknowledged, len(outbox), outbox.dropped) == (0, 2, 1)
    outbox.sent(on_the_way)
    assert (outbox.acknowledged, len(outbox), outbox.dropped) == (1, 2, 0)


def test_only_what_has_waited_is_written_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(outbox_module.time, "monotonic", lambda: now)
    outbox = Outbox(tmp_path / "o.sqlite", most_waiting=9)
    outbox.add(b"0")
    outbox.keep()
    assert not (tmp_path / "o.sqlite").exists()
    now += outbox_module.TO_DISK_AFTER_S + 0.1
    outbox.keep()
    assert [message.payload for message in Outbox(tmp_path / "o.sqlite", 9).first(9, timeout=0)] == [b"0"]


class HangingWriter:
    """Takes one inspection and does not come back before it is told to."""

    needs_pixels = True

    def __init__(self) -> None:
        self.began, self.may_end = threading.Event(), threading.Event()

    def wants(self, inspection: Inspection) -> bool:
        return True

    def write(self, inspection: Inspection) -> None:
        self.began.set()
        assert self.may_end.wait(PATIENCE)


@pytest.mark.parametrize(("side", "may_wait"), [(64, 30), (2048, 7), (8192, 1)])
def test_pictures_that_wait_for_a_slow_disk_take_a_bounded_amount_of_memory(side: int, may_wait: int) -> None:
    writer = HangingWriter()
    sink = QueuedSink("overlays", writer)
    pixels = np.broadcast_to(np.uint8(0), (side, side, 3))  # as large as it says, in one byte of memory
    picture = replace(inspection(), pixels=pixels)
    sink.put(picture)
    assert writer.began.wait(PATIENCE)
    for _ in range(40):
        sink.put(picture)
    writer.may_end.set()
    sink.close(time.monotonic() + PATIENCE)
    assert sink.counts() == f"{may_wait + 1} written, 0 failed, {40 - may_wait} dropped"


def test_sinks_that_are_there_end_when_another_cannot_be_made() -> None:
    """Under Greengrass wrong settings are tried again for ever: threads must not pile up."""
    writer = HangingWriter()
    writer.may_end.set()

    def make() -> Iterator[Sink]:
        yield QueuedSink("a sink of this test", writer)
        raise WrongSetting("mqtt: this needs paho-mqtt")

    with pytest.raises(WrongSetting):
        Sinks(make())
    wait_for("its thread to end", lambda: "a sink of this test" not in {each.name for each in threading.enumerate()})


def test_a_password_in_an_address_is_shown_to_nobody() -> None:
    source = Source(address="rtsp://operator:s3cret@10.0.0.7:554/stream?a=b@c")
    assert source.shown == "rtsp://10.0.0.7:554/stream?a=b@c"
    assert "s3cret" in source.place


def test_a_camera_may_be_named_by_its_number() -> None:
    assert Source(address="camera:2").place == "/dev/video2"
    assert Source(address="camera:/dev/v4l/by-id/usb-1").place == "/dev/v4l/by-id/usb-1"


def test_each_camera_and_device_has_a_name_of_its_own_on_the_broker() -> None:
    own = settings_from({**CAMERA, "name": "line-2"}).broker.client_id
    assert own == f"line-2@{platform.node()}"
    assert settings_from({**CAMERA, "broker": {"client_id": "press"}}).broker.client_id == "press"


@pytest.mark.skipif(find_spec("paho") is None, reason="paho-mqtt is not installed")
@pytest.mark.parametrize("content", ["no certificate", None])
def test_certificates_that_cannot_be_read_are_named(tmp_path: Path, content: str | None) -> None:
    from camera_client.sinks.mqtt import connect

    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    with pytest.raises(WrongSetting, match=re.escape(f"broker: {file} cannot be read: ")):
        connect(Broker(client_id="line-1", ca_file=str(file)))


def test_a_recording_keeps_its_pace_and_makes_up_for_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    waited: list[float] = []

    class Stop(threading.Event):
        def wait(self, seconds: float | None = None) -> bool:
            nonlocal now
            waited.append(round(seconds or 0, 3))
            now += seconds or 0
            return False

    monkeypatch.setattr(pace_module.time, "monotonic", lambda: now)
    pace, stop = Pace(frame_rate=10), Stop()
    for _ in range(3):
        pace.wait(stop)
        now += 0.03  # what decoding takes
    assert waited == [0, 0.07, 0.07]
    now += 60
    for _ in range(4):
        pace.wait(stop)
    assert waited[3:] == [0, 0.1, 0.1, 0.1]


def test_a_message_with_too_many_types_leaves_out_the_smallest_and_counts_them() -> None:
    message = inspection(types=200).message()
    told = json.loads(message)
    assert len(message) <= LARGEST_MESSAGE
    assert told["anomalies_left_out"] + len(told["anomalies"]) == 200
    assert told["anomalies"][-1]["name"] == "type-199"
    assert "anomalies_left_out" not in json.loads(inspection(types=5).message())


def test_a_folder_keeps_within_its_budget_and_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x" * 5000)
    DiskBudget(tmp_path, ".png", 0.001).write("earlier.png", b"x" * 400)
    budget = DiskBudget(tmp_path, ".png", 0.001)
    assert budget.write("a.png", b"x" * 400) == []
    assert budget.write("b.png", b"x" * 500) == ["earlier.png"]
    assert budget.write("c.png", b"x" * 900) == ["a.png", "b.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.png", "notes.txt"]
    with pytest.raises(LargerThanTheBudget, match="raise most_megabytes"):
        budget.write("d.png", b"x" * 1001)


def test_the_file_of_verdicts_is_put_aside_at_half_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    writer = JsonLinesWriter(JsonLines(path=str(path), most_megabytes=0.002))
    for number in range(12):
        writer.write(inspection(number))
    aside = tmp_path / "verdicts.jsonl.1"
    lines = aside.read_text().splitlines() + (path.read_text().splitlines() if path.exists() else [])
    numbers = [json.loads(line)["id"] for line in lines]
    assert numbers == [f"id-{number}" for number in range(12 - len(numbers), 12)], "the newest, none twice"
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2500


def test_a_disk_without_room_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError) as failure:
        JsonLinesWriter(JsonLines(path=str(path))).write(inspection())
    assert failure.value.errno in (errno.ENOSPC, errno.EINVAL)


def test_settings_take_what_both_nuclei_hand_out() -> None:
    as_text = settings_from({**CAMERA, "in_flight": "3", "picture": {"rotate": "90"}, "rules": {"confidence": "0.5"}})
    as_numbers = settings_from({**CAMERA, "in_flight": 3.0, "picture": {"rotate": 90.0}, "rules": {"confidence": 0.5}})
    assert as_text == as_numbers
    assert as_text.in_flight == 3


def test_the_readme_tells_of_every_setting() -> None:
    readme = (ROOT / "client_examples/camera/README.md").read_text()
    parts = [each for each in vars(camera_settings).values() if isinstance(each, type) and issubclass(each, Part)]
    names = {name for part in parts for name in part.__struct_fields__}
    assert "uncertain_band" in names
    assert not [name for name in names if f"`{name}`" not in readme]


def test_the_example_of_settings_is_right() -> None:
    values = json.loads((ROOT / "client_examples/camera/line.json").read_text())
    assert settings_from(values).rules.area_limits["scratch"] == 0.01


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"source": {"address": "camera:0"}}, "model: required, but not set; the README lists"),
        ({**CAMERA, "name": "hall/1"}, "name: expected a name without /"),
        ({**CAMERA, "source": {}}, "source.address: required, but not set"),
        ({**CAMERA, "overlays": {"path": "a"}}, "overlays.path: there is no such setting; there are folder, verdicts,"),
        ({**CAMERA, "overlays": {"folder": "a", "verdicts": ["no"]}}, "'no'; allowed: pass, reject, uncertain"),
        ({**CAMERA, "source": {"address": "camera:"}}, "source.address: 'camera:' is none of"),
        ({**CAMERA, "source": {"address": "rtsp://a", "skip_frames": False}}, "a camera does not wait"),
        ({**FOLDER, "source": {"address": "folder:in", "skip_frames": True}}, "only with source.frame_rate"),
        ({**FOLDER, "trigger": {"kind": "interval"}}, "trigger.kind: only every_frame"),
        ({**CAMERA, "trigger": {"kind": "file"}}, "trigger.path: name the file"),
        ({**CAMERA, "trigger": {"kind": "mqtt"}}, "trigger.topic: name the topic"),
        ({**CAMERA, "rules": {"reject_after": 3, "out_of": 2}}, "rules.reject_after: not more than rules.out_of"),
        ({**CAMERA, "gate": {"command": []}}, "gate.command: Expected `array` of length >= 1"),
        ({**CAMERA, "mqtt": {"topic": "line/#"}}, "mqtt.topic: expected a topic without the wildcards + and #"),
        ({**CAMERA, "picture": {"rotate": 45}}, "picture.rotate: Invalid enum value 45; allowed: 0, 90, 180, 270"),
    ],
)
def test_wrong_settings_are_named_with_what_is_allowed(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WrongSetting) as refusal:
        settings_from(values)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("left", [b"\0\0\0\xff\xfe", b"7", b"{}", b'{"source-ref": 7}', b"[1, ", None])
def test_what_is_left_at_the_end_of_the_manifest_costs_no_picture(tmp_path: Path, left: bytes | None) -> None:
    manifest = tmp_path / "capture.manifest"
    writer = CaptureWriter(Capture(folder=str(tmp_path), one_in=1))
    pixels = np.zeros((64, 64, 3), np.uint8)
    first = inspection()
    assert first.result is not None
    first.result.mask = None
    writer.write(replace(first, pixels=pixels))
    # What a labelling tool has written is kept as it is: such a character ends no line.
    kept = json.loads(manifest.read_text()) | {"note": "a\u2028b"}
    manifest.write_bytes(json.dumps(kept, ensure_ascii=False).encode() + (b"" if left is None else b"\n" + left))
    CaptureWriter(Capture(folder=str(tmp_path), one_in=1)).write(replace(first, id="id-2", pixels=pixels))
    lines = [json.loads(line) for line in manifest.read_bytes().splitlines()]
    assert [line["source-ref"] for line in lines] == ["pictures/id-1.png", "pictures/id-2.png"]
    assert lines[0] == kept
