"""Engines kept on disk: the right one, whole, or none; private, bounded, one build at a time."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from agent.backends import engine_cache
from agent.backends.engine_cache import EngineCache, EngineCacheNotUsable, EngineKey, EngineTooLarge, model_sha256
from tests.support.packages import darkness_model

KEY = EngineKey("a" * 64, "TensorRT 10.3.0", "Orin", "8.7", "12.6", "fp16", True, (1, 3, 8, 8), ("score",), 1 << 30, 3)
ENGINE = bytes(range(256)) * 40
MIB = 1 << 20


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines", 100 * MIB)


def store(cache, key=KEY, engine=ENGINE, name="bottle"):
    cache.store(key, memoryview(engine), name, 12.5)


def file_of(tmp_path, key=KEY):
    return tmp_path / "engines" / f"{key.digest}.engine"


def other(**fields):
    return msgspec.structs.replace(KEY, **fields)


# --- find and store


def test_an_engine_that_was_kept_is_found_again_by_another_process(cache, tmp_path):
    store(cache)
    assert EngineCache(tmp_path / "engines", 100 * MIB).find(KEY) == ENGINE


def test_what_was_never_kept_is_not_found(cache):
    assert cache.find(KEY) is None


DIFFERENT = {
    "model": "b" * 64,
    "runtime": "TensorRT 10.3.1",
    "gpu": "Orin NX",
    "compute_capability": "8.6",
    "cuda": "12.8",
    "precision": "fp32",
    "input_shape": (1, 3, 8, 16),
    "outputs": ("score", "map"),
    "workspace": 1 << 29,
    "optimization_level": 5,
    "tf32": False,
}


@pytest.mark.parametrize("field", EngineKey.__struct_fields__)
def test_an_engine_for_anything_else_is_another_engine(cache, field):
    store(cache)
    assert cache.find(other(**{field: DIFFERENT[field]})) is None
    assert cache.find(KEY) == ENGINE


def test_a_newer_engine_replaces_the_one_before(cache):
    store(cache)
    before = cache.find(KEY)
    store(cache, engine=b"newer")
    assert cache.find(KEY) == b"newer"
    assert before == ENGINE  # who has it mapped keeps it


def test_what_is_there_is_told_last_used_first(cache, tmp_path):
    store(cache, other(precision="fp32"), name="cable")
    store(cache)
    os.utime(file_of(tmp_path), (1, 1))
    assert [kept.head.model_name for kept in cache.engines()] == ["cable", "bottle"]
    cache.find(KEY)
    assert [(kept.head.model_name, kept.head.key.precision) for kept in cache.engines()] == [
        ("bottle", "fp16"),
        ("cable", "fp32"),
    ]


def test_clear_gives_everything_back(cache, tmp_path):
    store(cache)
    cache.store_timing(KEY, memoryview(b"timing"))
    cache.put_aside(KEY, "for a test")
    store(cache, other(gpu="L4"))
    assert cache.clear() > 2 * len(ENGINE)
    assert cache.engines() == []
    assert list((tmp_path / "engines").glob("*.timing")) == []


# --- bad files


def damaged(content):
    head = content.index(b"\n", len(engine_cache.FORMAT)) + 1
    last = len(content) - 1
    return {
        "empty": b"",
        "zeros": bytes(len(content)),
        "random": random.Random(1).randbytes(len(content)),
        "text": b"not an engine\n" * 1000,
        "a bare engine": content[head:],
        "truncated in its head": content[: head - 10],
        "truncated after its head": content[:head],
        "truncated": content[:last],
        "longer": content + b"x",
        "one bit": content[:last] + bytes([content[last] ^ 1]),
        "zero pages at the end": content[:-4096] + bytes(4096),
        "another format": content.replace(b"engine 1\n", b"engine 2\n", 1),
        "a head that is a list": engine_cache.FORMAT + b"[]\n" + content[head:],
        "an endless head": engine_cache.FORMAT + b"{" * (engine_cache.MAX_HEAD + 10),
    }


def written(cache, tmp_path):
    store(cache)
    return file_of(tmp_path).read_bytes()


DAMAGES = list(damaged(engine_cache.FORMAT + b"{}\n" + ENGINE))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_put_aside_and_never_served(cache, tmp_path, damage):
    file_of(tmp_path).write_bytes(damaged(written(cache, tmp_path))[damage])
    file_of(tmp_path).chmod(0o600)
    assert cache.find(KEY) is None
    assert [path.suffix for path in (tmp_path / "engines").iterdir()] == [".bad"]
    assert cache.engines()[0].head is None
    store(cache)
    assert cache.find(KEY) == ENGINE


def test_a_thousand_power_cuts_leave_nothing_torn_to_be_served(cache, tmp_path):
    """What a disk may hold of a file that was not made last: a beginning, with pages of zeros."""
    content, chance = written(cache, tmp_path), random.Random(7)
    outcomes = {"none": 0, "whole": 0}
    for _ in range(1000):
        torn = bytearray(content[: chance.randint(0, len(content))])
        for _ in range(chance.randint(0, 2)):
            begin = chance.randint(0, len(torn)) // 512 * 512
            torn[begin : begin + 512] = bytes(len(torn[begin : begin + 512]))
        file_of(tmp_path).write_bytes(torn)
        found = cache.find(KEY)
        assert found is None or found == ENGINE
        outcomes["none" if found is None else "whole"] += 1
    assert outcomes["none"] > 900


def test_a_thousand_power_cuts_leave_no_torn_folder_to_be_served(cache):
    folder, chance = cache.empty_folder(KEY), random.Random(7)
    for name in ("a.engine", "b.engine"):
        (folder / name).write_bytes(ENGINE)
    cache.keep_folder(KEY, "bottle", 12.5)
    assert cache.has_folder(KEY)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    served = 0
    for _ in range(1000):
        torn = chance.choice(list(whole))
        content = bytearray(whole[torn][: chance.randint(0, len(whole[torn]))])
        begin = chance.randint(0, len(content)) // 512 * 512
        content[begin : begin + 512] = bytes(len(content[begin : begin + 512]))
        (folder / torn).write_bytes(content)
        if cache.has_folder(KEY):
            assert content == whole[torn]
            served += 1
        (folder / torn).write_bytes(whole[torn])
    assert cache.has_folder(KEY)
    assert served < 100


def test_an_engine_under_the_name_of_another_is_not_served(cache, tmp_path):
    store(cache, other(compute_capability="8.9"))
    file_of(tmp_path, other(compute_capability="8.9")).rename(file_of(tmp_path))
    assert cache.find(KEY) is None


def test_what_tensorrt_does_not_load_is_put_aside_with_the_reason(cache, tmp_path, caplog):
    store(cache)
    cache.put_aside(KEY, "TensorRT does not load it")
    assert cache.find(KEY) is None
    assert "put aside: TensorRT does not load it" in caplog.text
    assert [kept.file for kept in cache.engines()] == [f"{KEY.digest}.bad"]


# --- private


def test_folder_and_files_are_its_users_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        store(EngineCache(tmp_path / "engines", MIB))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "engines").stat().st_mode) == 0o700
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600


def test_a_folder_that_others_could_write_is_closed_to_them(tmp_path):
    (tmp_path / "engines").mkdir(mode=0o777)
    (tmp_path / "engines").chmod(0o777)
    EngineCache(tmp_path / "engines", MIB)
    assert stat.S_IMODE((tmp_path / "engines").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_could_write_is_not_served(cache, tmp_path, mode):
    store(cache)
    file_of(tmp_path).chmod(mode)
    assert cache.find(KEY) is None


def test_a_link_is_not_followed(cache, tmp_path):
    store(cache)
    file_of(tmp_path).rename(tmp_path / "elsewhere")
    file_of(tmp_path).symlink_to(tmp_path / "elsewhere")
    assert cache.find(KEY) is None


def test_a_pipe_is_not_waited_for(cache, tmp_path):
    os.mkfifo(file_of(tmp_path))
    assert cache.find(KEY) is None


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "engines").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(EngineCacheNotUsable, match="belongs to another user, who could put code into it; name another"):
        EngineCache(tmp_path / "engines", MIB)


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.parent)], ids=["file", "link"])
def test_what_is_no_folder_is_refused(tmp_path, make):
    make(tmp_path / "engines")
    with pytest.raises(EngineCacheNotUsable):
        EngineCache(tmp_path / "engines", MIB)


# --- bounded


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    cache = EngineCache(tmp_path / "engines", 3 * MIB)
    keys = [other(gpu=name) for name in "abcd"]
    for age, key in enumerate(keys[:3]):
        store(cache, key, bytes(MIB - 4096))
        os.utime(file_of(tmp_path, key), (100 + age, 100 + age))
    cache.find(keys[0])
    store(cache, keys[3], bytes(MIB - 4096))
    assert [cache.find(key) is not None for key in keys] == [True, False, True, True]


def test_bad_files_make_room_first(tmp_path):
    cache = EngineCache(tmp_path / "engines", 2 * MIB)
    store(cache, other(gpu="bad"), bytes(MIB - 4096))
    cache.put_aside(other(gpu="bad"), "for a test")
    store(cache, engine=bytes(MIB - 4096))
    os.utime(file_of(tmp_path), (1, 1))
    store(cache, other(gpu="new"), bytes(MIB - 4096))
    assert cache.find(KEY) is not None
    assert len(cache.engines()) == 2


def test_an_engine_larger_than_all_there_may_be_removes_nothing(tmp_path):
    cache = EngineCache(tmp_path / "engines", MIB)
    store(cache)
    with pytest.raises(EngineTooLarge, match=r"has 2 MiB, and the engine cache may take 1: .* raise engine_cache_size"):
        store(cache, other(gpu="large"), bytes(MIB + 1))
    assert cache.find(KEY) == ENGINE


def test_a_full_disk_leaves_the_cache_as_it_was(cache, tmp_path, monkeypatch):
    store(cache)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.atomic_file.os.write", full)
    with pytest.raises(OSError, match="No space left"):
        store(cache, engine=b"newer")
    assert cache.find(KEY) == ENGINE
    assert [path.name for path in (tmp_path / "engines").iterdir()] == [file_of(tmp_path).name]


# --- one build at a time

BUILD = """
import sys
from pathlib import Path
import msgspec
from agent.backends.engine_cache import EngineCache, EngineKey
key = msgspec.json.decode(sys.argv[2], type=EngineKey)
cache = EngineCache(Path(sys.argv[1]), 1 << 20)
print("ready", flush=True)
sys.stdin.readline()
with cache.turn_to_build():
    if cache.find(key) is None:
        print("built", flush=True)
        cache.store(key, memoryview(b"engine"), "", 0.0)
"""


def test_workers_that_want_the_same_engine_build_it_once(tmp_path):
    command = [sys.executable, "-c", BUILD, str(tmp_path / "engines"), msgspec.json.encode(KEY).decode()]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(3)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=60)[0] for worker in workers]
    assert sorted(said) == ["", "", "built\n"]


def test_who_waits_for_another_build_says_so_and_comes_after_it(cache, tmp_path):
    waits, order = threading.Event(), []

    def second():
        with EngineCache(tmp_path / "engines", MIB).turn_to_build(waits.set):
            order.append("second")

    with cache.turn_to_build(lambda: order.append("nobody else builds")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_what_a_killed_build_left_behind_is_removed(cache, tmp_path):
    store(cache)
    (tmp_path / "engines" / f".{KEY.digest}.engine.1234abcd").write_bytes(b"half")
    with cache.turn_to_build():
        assert [path.suffix for path in sorted((tmp_path / "engines").iterdir())] == [".engine", ".lock"]
    assert cache.find(KEY) == ENGINE


# --- timing, and what a model is


def test_timings_hold_for_all_models_of_a_gpu(cache):
    cache.store_timing(KEY, memoryview(b"measured"))
    assert cache.timing(other(model="b" * 64, precision="fp32")) == b"measured"
    assert cache.timing(other(runtime="TensorRT 10.4.0")) == b""
    assert cache.timing(other(gpu="L4")) == b""


def test_a_damaged_timing_is_none(cache, tmp_path):
    cache.store_timing(KEY, memoryview(b"measured"))
    (file,) = (tmp_path / "engines").glob("*.timing")
    file.write_bytes(file.read_bytes()[:-1])
    assert cache.timing(KEY) == b""


def test_a_model_is_told_by_its_graph_and_its_weights_wherever_it_lies(tmp_path):
    model = darkness_model()
    weights = onnx.numpy_helper.from_array(np.arange(2048, dtype=np.float32), "weights")
    model.graph.initializer.append(weights)
    (tmp_path / "a").mkdir()
    onnx.save(model, tmp_path / "a" / "a.onnx", save_as_external_data=True, location="data")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "a.onnx").rename(tmp_path / "b" / "b.onnx")
    first = model_sha256(tmp_path / "a" / "a.onnx")
    assert model_sha256(tmp_path / "b" / "b.onnx") == first
    content = bytearray((tmp_path / "b" / "data").read_bytes())
    content[-1] ^= 1
    (tmp_path / "b" / "data").write_bytes(content)
    assert model_sha256(tmp_path / "b" / "b.onnx") != first
