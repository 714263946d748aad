"""Rows B: what a client may do with shared memory. Here: names, ranges, and what is no segment."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.row import ANY_SIZE, Run, row, skip
from tests.faults.segments_support import (
    ANOMALY,
    BRIGHT,
    DARK,
    SIZE,
    handle,
    held_by,
    image_in,
    laid_down,
    mask_in,
    memory_of,
    must_answer,
    must_refuse,
    path_of,
    processes_of,
)
from tests.support.agent_process import AgentProcess, inline_request, segment
from tests.support.packages import HEIGHT, WIDTH, make_package

NO_PLAIN_SEGMENT = "it is no plain shared-memory segment"


@row("B1", "a segment that is not there: INVALID_ARGUMENT", unit="names", full=1000, short=10)
def not_there(run: Run) -> None:
    stub = run.agent.stub()
    for number in run.steps():
        name = f"/ea-test-{os.getpid()}-not-there-{number}"
        must_refuse(run, stub, image_in(handle(name)), "there is no such segment")
        must_refuse(run, stub, mask_in(handle(name)), "there is no such segment")
        assert not path_of(name).exists()


EDGES = (0, SIZE, 2 * SIZE, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - SIZE, (1 << 64) - 1)


@row("B2", "a range outside the segment, up to 2^64: INVALID_ARGUMENT", unit="ranges", full=100_000, short=200)
def range_outside(run: Run) -> None:
    stub, room = run.agent.stub(), 2 * SIZE

    def any_number() -> int:
        kind = run.random.randrange(3)
        if kind == 0:
            return run.random.randrange(room)
        if kind == 1:
            return run.random.getrandbits(64)
        return min((1 << 64) - 1, max(0, run.random.choice(EDGES) + run.random.randint(-2, 2)))

    with segment(DARK.tobytes(), room) as name:
        for number in run.steps():
            size, offset = run.random.choice((SIZE, any_number())), any_number()
            lies_inside = offset + size <= room
            if number % 2:
                request, is_right = image_in(handle(name, size, offset)), size == SIZE and lies_inside
            else:
                request, is_right = mask_in(handle(name, size, offset)), size >= SIZE and lies_inside
            if is_right:
                must_answer(run, stub, request)
            else:
                must_refuse(run, stub, request)
            assert path_of(name).stat().st_size == room
    assert len(run.outcomes) == 2, run.outcomes


NAMES = (
    *("", "/", "//", "///", ".", "..", "/..", "{}/", "//{}", "/{}/x", "./{}", "a/../{}", "../shm/{}", "/dev/shm/{}"),
    *("{}\0", "{}\0.png", "\0{}", "/{}\0/../../etc/passwd", "{}\n", "\n{}", "{} ", " {}", "{}\\", "{}%s", "{}\u2044x"),
    *(".{}", "/.{}", "\uff0f{}", "\u200b{}", "\u202e{}", "x" * 255, "/" + "x" * 300, "x" * 1_000_000),
)
"""`{}` is the name of a real segment: had the agent opened that, it would have answered."""


@row("B3", "a name that is none: INVALID_ARGUMENT, no segment opened", unit="names", full=1000, short=len(NAMES))
def name_that_is_none(run: Run) -> None:
    stub = run.agent.stub()
    with segment(DARK.tobytes()) as real:
        must_answer(run, stub, image_in(handle(real)))
        for number in run.steps():
            name = NAMES[number % len(NAMES)].format(real.removeprefix("/"))
            must_refuse(run, stub, image_in(handle(name)), "is not accepted")
            must_refuse(run, stub, mask_in(handle(name)), "is not accepted")
            assert path_of(real).read_bytes() == DARK.tobytes()


@row("B4", "a link out of /dev/shm: INVALID_ARGUMENT, what it leads to stays unread", unit="links", full=1000, short=10)
def link_to_a_secret(run: Run) -> None:
    stub = run.agent.stub()
    secret = run.folder / "secret"
    secret.write_bytes(b"secret" * (SIZE // 6))
    with segment(DARK.tobytes()) as other:
        targets = (
            secret,
            path_of(other),
            run.folder,
            run.folder / "nothing",
            Path("/dev/zero"),
            Path("/proc/self/mem"),
        )
        for number in run.steps():
            with laid_down(lambda path, number=number: path.symlink_to(targets[number % len(targets)])) as name:
                must_refuse(run, stub, image_in(handle(name)), NO_PLAIN_SEGMENT)
                must_refuse(run, stub, mask_in(handle(name)), NO_PLAIN_SEGMENT)
        assert path_of(other).read_bytes() == DARK.tobytes()
    assert secret.read_bytes() == b"secret" * (SIZE // 6)
    assert not (run.folder / "nothing").exists()
    log = run.agent.log_text()
    assert "secretsecret" not in log and str(run.folder) not in log


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


@row("B5", "a FIFO, folder, socket or device: INVALID_ARGUMENT, no waiting", unit="things", full=4000, short=12)
def no_plain_file(run: Run) -> None:
    stub, slowest = run.agent.stub(), 0.0
    kinds: list[Callable[[Path], object]] = [os.mkfifo, Path.mkdir, unix_socket]
    if may_make(device):
        kinds.append(device)
    else:
        run.figures["devices"] = "not tried: this user may make none"
    for number in run.steps():
        with laid_down(kinds[number % len(kinds)]) as name:
            for request in (image_in(handle(name)), mask_in(handle(name))):
                began = time.monotonic()
                must_refuse(run, stub, request, NO_PLAIN_SEGMENT)
                slowest = max(slowest, time.monotonic() - began)
    run.figures["slowest"] = f"{slowest * 1000:.1f} ms"
    assert slowest < 10 * 0.050


def may_make(kind: Callable[[Path], object]) -> bool:
    try:
        with laid_down(kind):
            return True
    except PermissionError:
        return False


NOBODY = 65534


@row(
    "B6",
    "a segment of mode 0000 or with two names: INVALID_ARGUMENT; another user's that may be opened: OK",
    unit="segments",
    full=1000,
    short=5,
    uses_shared_agent=False,
)
def not_ours_to_open(run: Run) -> None:
    with AgentProcess(through=without_roots_rights()) as agent:
        agent.run_model(ANY_SIZE, make_package(run.folder / ANY_SIZE, any_size=True))
        stub = agent.stub()

        def may(name: str, *, read: bool, write: bool) -> None:
            for request, is_allowed in ((image_in(handle(name)), read), (mask_in(handle(name)), write)):
                if is_allowed:
                    must_answer(run, stub, request)
                else:
                    must_refuse(run, stub, request, "cannot be used")

        def two_names(name: str) -> None:
            with laid_down(lambda path: os.link(path_of(name), path)) as other:
                may(name, read=False, write=False)
                may(other, read=False, write=False)
            may(name, read=True, write=True)

        def has_mode(mode: int, **allowed: bool) -> Callable[[str], None]:
            def look(name: str) -> None:
                path_of(name).chmod(mode)
                may(name, **allowed)

            return look

        def is_nobodys(mode: int, **allowed: bool) -> Callable[[str], None]:
            def look(name: str) -> None:
                os.chown(path_of(name), NOBODY, NOBODY)
                has_mode(mode, **allowed)(name)

            return look

        looks = [two_names, has_mode(0o000, read=False, write=False), has_mode(0o400, read=True, write=False)]
        if os.geteuid() == 0:
            looks += [is_nobodys(0o600, read=False, write=False), is_nobodys(0o666, read=True, write=True)]
        else:
            run.figures["another user's"] = "not tried: only root gives files away"
        for number in run.steps():
            with segment(DARK.tobytes()) as name:
                looks[number % len(looks)](name)


def without_roots_rights() -> tuple[str, ...]:
    """Root opens every file, whatever its mode; without these two capabilities, only as any other user."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        skip("the tests run as root, which may open every segment, and there is no setpriv")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")


@row("B10", "a window of a huge sparse segment: OK, for its own size only", unit="windows", full=10_000, short=20)
def huge_and_sparse(run: Run) -> None:
    stub = run.agent.stub()
    with huge_segment() as (name, room):
        run.figures["segment"] = f"{room} bytes"
        windows = (0, room // 2, room - SIZE, room - SIZE - 1)
        for offset in windows:  # the worker has touched all memory it needs for a call
            must_answer(run, stub, mask_in(handle(name, SIZE, offset), inline_request(ANY_SIZE, BRIGHT)))
        before, taken = memory_of(run.agent), path_of(name).stat().st_blocks
        for number in run.steps():
            window = handle(name, SIZE, windows[number % len(windows)])
            must_answer(run, stub, mask_in(window, inline_request(ANY_SIZE, DARK)))
            score = must_answer(run, stub, image_in(window)).result.anomaly_score
            assert round(score, 4) == mask_score()
            must_refuse(run, stub, image_in(handle(name, SIZE, room - SIZE + 1)), "reach beyond it")
            must_refuse(run, stub, image_in(handle(name, room)))
        grown = memory_of(run.agent) - before
        assert path_of(name).stat().st_blocks == taken
    run.figures["memory grew by"] = f"{grown / 1e6:.1f} MB"
    assert grown < 10 * 5e6


def mask_score() -> float:
    """Of an image that is the mask of a dark one."""
    return round(1 - sum(ANOMALY) / 3 / 255, 4)


@contextlib.contextmanager
def huge_segment() -> Iterator[tuple[str, int]]:
    """As large as the machine makes them, its size in bytes."""
    with segment(b"") as name:
        for room in ((1 << 63) - 1, 1 << 40):
            with contextlib.suppress(OSError):
                os.truncate(path_of(name), room)
                yield name, room
                return
        skip("/dev/shm takes no segment of 1 TB")


@row("B12", "image and mask share a byte: INVALID_ARGUMENT, nothing written", unit="pairs", full=10_000, short=60)
def overlapping(run: Run) -> None:
    stub, content = run.agent.stub(), DARK.tobytes() * 3
    with segment(content) as name:
        spellings = (name, name.removeprefix("/"))
        for _ in run.steps():
            width = run.random.choice((WIDTH, 65))  # packed, and rows padded to 4 bytes
            size, mask_size = (width * 3 + 3) // 4 * 4 * HEIGHT, width * 3 * HEIGHT
            at, last = run.random.randrange(len(content) - size), len(content) - mask_size
            # Just touching it in front or behind, one byte more or less, on top of it, or anywhere.
            near = (at - mask_size, at + size, at, run.random.randrange(last))
            mask_at = min(last, max(0, run.random.choice(near) + run.random.randint(-1, 1)))
            image = image_in(handle(run.random.choice(spellings), size, at), width=width)
            request = mask_in(handle(run.random.choice(spellings), mask_size, mask_at), image)
            if at < mask_at + mask_size and mask_at < at + size:
                must_refuse(run, stub, request, "overlaps")
                assert path_of(name).read_bytes() == content
            else:
                must_answer(run, stub, request)
                mask = bytes(ANOMALY) * (mask_size // 3)
                assert path_of(name).read_bytes() == content[:mask_at] + mask + content[mask_at + mask_size :]
                path_of(name).write_bytes(content)
    assert len(run.outcomes) == 2, run.outcomes


@row("B16", "what the agent itself holds, by name: INVALID_ARGUMENT", unit="names", full=10_000, short=100)
def internal_names(run: Run) -> None:
    stub = run.agent.stub()
    must_answer(run, stub, inline_request(ANY_SIZE, DARK))  # its pixels went through the agent's own memory
    names = {name for pid in processes_of(run.agent) for way in ways_to(pid) for name in (way, f"/{way}")}
    assert any("memfd:" in name for name in names)
    tried = sorted(names, key=lambda name: "memfd" not in name)  # pixels first
    run.figures["names"] = str(len(tried))
    for number in run.steps():
        name = tried[number % len(tried)]
        must_refuse(run, stub, image_in(handle(name)))
        must_refuse(run, stub, mask_in(handle(name)))


def ways_to(pid: int) -> Iterator[str]:
    """All that a client might take for the name of something a process holds."""
    for held in held_by(pid):
        # What lies in /dev/shm can be asked for by anybody: the agent must have nothing there.
        assert not held.startswith("/dev/shm/"), held
        yield from (held, Path(held).name, held.split(" ")[0], held.rpartition(":")[2].split(" ")[0])
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        yield from (str(descriptor), f"../../proc/{pid}/fd/{descriptor.name}", f"fd/{descriptor.name}", descriptor.name)
