"""A client's segment, hostile or careless: nothing that is done to it hurts the agent or opens anything else."""

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import BadSegmentName, NoRoomForMask, SegmentNotUsable, SegmentTooSmall, SegmentTruncated
from agent.images import shared_memory
from agent.images.shared_memory import SHM, SegmentRange, open_segment, read_segment, write_segment

pytestmark = pytest.mark.skipif(not SHM.is_dir(), reason="no /dev/shm on this machine")


@pytest.fixture
def make():
    """Makes a segment of a test's own in /dev/shm and gives its path; all are gone after the test."""
    made = []

    def segment(content: bytes | None = b"") -> Path:
        made.append(SHM / f"test-{uuid.uuid4().hex}")
        if content is not None:
            made[-1].write_bytes(content)
        return made[-1]

    yield segment
    for path in made:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open():
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def read(name, size, offset=0):
    into = bytearray(size)
    descriptor = open_segment(SegmentRange(name, size, offset), writable=False)
    try:
        read_segment(descriptor, offset, memoryview(into))
    finally:
        os.close(descriptor)
    return bytes(into)


def write(name, content, offset=0):
    descriptor = open_segment(SegmentRange(name, len(content), offset), writable=True)
    try:
        write_segment(descriptor, offset, memoryview(content))
    finally:
        os.close(descriptor)


# --- reading and writing


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_range_is_read_and_written_with_and_without_the_leading_slash(make, slash):
    path = make(b"0123456789")
    assert read(slash + path.name, 4, 3) == b"3456"
    assert read(slash + path.name, 10) == b"0123456789"
    write(slash + path.name, b"abc", 7)
    assert path.read_bytes() == b"0123456abc"


def test_a_segment_made_by_shm_open_is_read(make):
    path = make(None)
    client = (
        "import mmap, sys, _posixshmem, os\n"
        "fd = _posixshmem.shm_open(sys.argv[1], os.O_CREAT | os.O_RDWR, mode=0o666)\n"
        "os.ftruncate(fd, 8192)\n"
        "mmap.mmap(fd, 8192)[4096:4100] = b'here'\n"
    )
    subprocess.run([sys.executable, "-c", client, f"/{path.name}"], check=True)
    assert read(f"/{path.name}", 4, 4096) == b"here"
    assert path.exists()


@settings(max_examples=200, deadline=None)
@given(offset=st.integers(0, 999), size=st.integers(0, 1000))
def test_bytes_around_a_written_range_stay_as_they_are(offset, size):
    size = min(size, 1000 - offset)
    path = SHM / f"test-canary-{os.getpid()}"
    canary = bytes(range(250)) * 4
    path.write_bytes(canary)
    try:
        write(path.name, b"\xff" * size, offset)
        assert path.read_bytes() == canary[:offset] + b"\xff" * size + canary[offset + size :]
    finally:
        path.unlink()


# --- names


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "//",
        "///",
        ".",
        "..",
        "/..",
        ".hidden",
        "/.hidden",
        "../dev/shm/{name}",
        "a/../{name}",
        "./{name}",
        "//{name}",
        "/dev/shm/{name}",
        "{name}/",
        "{name}/x",
        "{name}\0",
        "{name}\0.png",
        "\0{name}",
        "{name}\n",
        "\n{name}",
        "{name} ",
        "{name}\\",
        "{name}%s{{}}",
        "{name}\u2044x",
        "\uff54est",
        "tes\u0442",
        "test\ud800",
        "x" * 255,
        "/" + "x" * 255,
        "x" * 1_000_000,
    ],
)
def test_a_name_that_is_not_plain_is_refused_and_opens_nothing(make, name):
    path = make(b"content")
    with pytest.raises(BadSegmentName) as refusal:
        open_segment(SegmentRange(name.format(name=path.name), 1, 0), writable=False)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("name", ["gstreamer-lookoutvision-bitmap", "sem.x", "a", "A+@:=,~-._9", "x" * 254, "-x", "_"])
def test_plain_names_get_as_far_as_looking_for_the_segment(name):
    with pytest.raises(SegmentNotUsable) as refusal:
        open_segment(SegmentRange(f"/{name}", 1, 0), writable=False)
    assert str(refusal.value).endswith("cannot be used: there is no such segment.")


# --- what is no plain segment


def symlink(path):
    path.symlink_to("/etc/hostname")


def symlink_within(path):
    target = path.with_name(path.name + "-target")
    target.write_bytes(b"secret")
    path.symlink_to(target)


def folder(path):
    path.mkdir()


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def device(path):
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("device nodes cannot be made here")


def hard_link(path):
    path.write_bytes(b"secret")
    os.link(path, path.with_name(path.name + "-target"))


@pytest.mark.parametrize("kind", [symlink, symlink_within, os.mkfifo, folder, unix_socket, device, hard_link])
@pytest.mark.parametrize("writable", [False, True])
def test_what_is_no_plain_segment_is_refused_at_once(make, kind, writable):
    path = make(None)
    kind(path)
    try:
        shortest = 1.0
        for _ in range(3):
            begun = time.perf_counter()
            with pytest.raises(SegmentNotUsable) as refusal:
                open_segment(SegmentRange(path.name, 4, 0), writable=writable)
            shortest = min(shortest, time.perf_counter() - begun)
        assert str(refusal.value).endswith("cannot be used: it is no plain shared-memory segment.")
        assert shortest < 0.05
    finally:
        path.with_name(path.name + "-target").unlink(missing_ok=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every segment")
@pytest.mark.parametrize(("mode", "writable", "what"), [(0o000, False, "read"), (0o400, True, "write")])
def test_a_segment_that_the_agent_may_not_open_is_refused(make, mode, writable, what):
    path = make(b"x")
    path.chmod(mode)
    with pytest.raises(SegmentNotUsable, match=f"the agent may not {what} it"):
        open_segment(SegmentRange(path.name, 1, 0), writable=writable)


# --- ranges


@settings(max_examples=500, deadline=None)
@given(
    *[st.integers(0, 2**64 - 1) | st.integers(0, 1100) | st.sampled_from([2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])]
    * 2
)
def test_a_range_is_opened_exactly_where_it_lies_inside_the_segment(size, offset):
    path = SHM / f"test-range-{os.getpid()}"
    path.write_bytes(bytes(1000))
    try:
        os.close(open_segment(SegmentRange(path.name, size, offset), writable=False))
        assert offset + size <= 1000
    except SegmentTooSmall as refusal:
        assert offset + size > 1000
        assert f"has 1000 bytes; offset {offset} and size {size} reach beyond it" in str(refusal)
    finally:
        path.unlink()


def test_an_offset_beyond_the_size_is_legal_where_the_segment_reaches_so_far(make):
    assert read(make(b"0123456789").name, 2, 8) == b"89"


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (("a", 10, 0), ("a", 10, 10), False),
        (("a", 10, 10), ("a", 10, 0), False),
        (("a", 11, 0), ("a", 10, 10), True),
        (("a", 10, 0), ("a", 10, 0), True),
        (("a", 1, 5), ("a", 10, 0), True),
        (("/a", 10, 0), ("a", 10, 5), True),
        (("a", 10, 0), ("b", 10, 0), False),
        (("a", 2**63, 2**63), ("a", 1, 2**64 - 1), True),
    ],
)
def test_ranges_overlap_where_they_share_a_byte_of_one_segment(one, other, overlap):
    assert SegmentRange(*one).overlaps(SegmentRange(*other)) is overlap
    assert SegmentRange(*other).overlaps(SegmentRange(*one)) is overlap


@pytest.mark.parametrize("size", [1 << 40, (1 << 63) - 1])
def test_a_window_of_a_huge_sparse_segment_costs_its_own_size_only(make, size):
    path = make()
    try:
        os.truncate(path, size)
    except OSError:
        pytest.skip(f"this /dev/shm makes no segment of {size} bytes")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    for offset in (0, size // 2, size - 4096):
        assert read(path.name, 4096, offset) == bytes(4096)
    assert resident() - before < 5_000_000
    with pytest.raises(SegmentTooSmall):
        read(path.name, 4096, size - 4095)


# --- the owner changes the segment meanwhile


@pytest.mark.parametrize("left", [0, 9])
def test_a_segment_that_shrinks_before_it_is_read_gives_no_image(make, left):
    path = make(bytes(10))
    descriptor = open_segment(SegmentRange(path.name, 10, 0), writable=False)
    os.truncate(path, left)
    with pytest.raises(SegmentTruncated):
        read_segment(descriptor, 0, memoryview(bytearray(10)))
    os.close(descriptor)


@pytest.mark.parametrize("left", [0, 9])
def test_a_segment_that_shrinks_before_it_is_written_is_not_grown_again(make, left):
    path = make(bytes(10))
    descriptor = open_segment(SegmentRange(path.name, 5, 5), writable=True)
    os.truncate(path, left)
    with pytest.raises(SegmentTruncated):
        write_segment(descriptor, 5, memoryview(b"abcde"))
    os.close(descriptor)
    assert path.read_bytes() == bytes(left)


def test_a_segment_that_is_replaced_meanwhile_is_read_as_it_was(make):
    path = make(b"old" * 10)
    descriptor = open_segment(SegmentRange(path.name, 30, 0), writable=False)
    path.unlink()
    path.write_bytes(b"new")
    into = bytearray(30)
    read_segment(descriptor, 0, memoryview(into))
    os.close(descriptor)
    assert into == b"old" * 10


def test_a_truncation_storm_gives_whole_reads_or_refusals(make):
    size, path, stop = 50_000, make(b"\x07" * 50_000), threading.Event()

    def storm():
        while not stop.is_set():
            os.truncate(path, 0)
            path.write_bytes(b"\x07" * size)

    thread = threading.Thread(target=storm)
    thread.start()
    outcomes = {"whole": 0, "refused": 0}
    try:
        for _ in range(1500):
            try:
                assert len(read(path.name, size)) == size
                outcomes["whole"] += 1
            except (SegmentTooSmall, SegmentTruncated):
                outcomes["refused"] += 1
            try:
                write(path.name, b"\x07" * 1000, size - 1000)
            except (SegmentTooSmall, SegmentTruncated):
                outcomes["refused"] += 1
    finally:
        stop.set()
        thread.join()
    assert outcomes["refused"] > 0


def test_short_reads_and_writes_go_on_where_they_ended(make, monkeypatch):
    path = make(b"0123456789")
    preadv, pwrite = os.preadv, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:3]], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, content, offset: pwrite(fd, content[:3], offset))
    assert read(path.name, 8, 1) == b"12345678"
    write(path.name, b"abcdefgh", 1)
    assert path.read_bytes() == b"0abcdefgh9"


# --- no room


def test_a_full_shared_memory_is_no_room_for_the_mask(tmp_path, monkeypatch):
    mounted = tmp_path / "shm"
    mounted.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", mounted], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        monkeypatch.setattr(shared_memory, "SHM", mounted)
        (mounted / "mask").touch()
        os.truncate(mounted / "mask", 1 << 20)  # sparse: its pages are allocated when they are written
        with pytest.raises(NoRoomForMask) as refusal:
            write("mask", b"\xff" * (1 << 20))
        assert str(refusal.value) == (
            "There is no room in shared memory for a mask of 1048576 bytes; free or enlarge /dev/shm."
        )
        write("mask", b"\xff" * 1000)  # what has its pages already can be written still
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_an_error_while_writing_is_no_room_for_the_mask(make, monkeypatch):
    path = make(bytes(10))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoRoomForMask):
        write(path.name, b"0123456789")


def test_a_lack_of_descriptors_is_not_the_callers_fault(monkeypatch):
    def none_left(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        open_segment(SegmentRange("/segment", 1, 0), writable=False)
