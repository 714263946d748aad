"""Rows B: masks that the agent writes into a client's segment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import grpc
import numpy as np

from tests.faults.row import ANY_SIZE, Run, row, skip
from tests.faults.segments_support import SIZE, ask, handle, image_in, mask_in, mask_of, must_answer, path_of
from tests.support.agent_process import AgentProcess, segment
from tests.support.packages import make_package

ROOM = 256 * 1024
"""Bytes of the small /dev/shm."""
PAGE = os.sysconf("SC_PAGE_SIZE")


@row(
    "B9",
    "/dev/shm is full when the mask is written: RESOURCE_EXHAUSTED and no result",
    unit="requests",
    full=10_000,
    short=40,
    uses_shared_agent=False,
)
def no_room_for_the_mask(run: Run) -> None:
    with AgentProcess(through=with_a_small_shm()) as agent:
        agent.run_model(ANY_SIZE, make_package(run.folder / ANY_SIZE, any_size=True))
        stub = agent.stub()
        # The agent's mount namespace, seen from ours.
        shm = Path(f"/proc/{agent.running.pid}/root/dev/shm")
        filler, mask = shm / "filler", shm / "mask"
        for _ in run.steps(each=2):
            mask.write_bytes(b"")
            os.truncate(mask, SIZE)  # sparse: its pages are taken when they are written
            fill(filler, free_pages=run.random.randrange(SIZE // PAGE))
            reply = ask(run, stub, mask_in(handle("/mask")))
            assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED and "no room in shared memory" in reply.sentence
            filler.unlink()
            must_answer(run, stub, mask_in(handle("/mask")))
            assert mask.read_bytes() == mask_of(np.zeros((SIZE // 3, 3), np.uint8)).tobytes()


def with_a_small_shm() -> tuple[str, ...]:
    """A command that gives what it runs a /dev/shm of its own, of ROOM bytes."""
    private = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--mount")
    mount = f'mount -t tmpfs -o size={ROOM} none /dev/shm && exec "$@"'
    command = (*private, "sh", "-c", mount, "sh")
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        skip("no small /dev/shm can be mounted here")
    return command


def fill(filler: Path, free_pages: int) -> None:
    """Takes all memory but for some pages."""
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(ROOM)):
                pass
        except OSError:
            file.truncate(file.tell() - free_pages * PAGE)


@row("B13", "bytes around the mask's range: as they were", unit="windows", full=100_000, short=100)
def bytes_around_the_mask(run: Run) -> None:
    stub, numbers = run.agent.stub(), np.random.default_rng(run.seed)
    for number in run.steps():
        width, height = (run.random.randrange(64, 100) for _ in range(2))
        pixels = np.repeat(numbers.choice(np.array([0, 255], np.uint8), (height, width, 1)), 3, axis=2)
        size = pixels.nbytes
        offset, behind = run.random.randrange(2 * PAGE), run.random.randrange(PAGE)
        before = numbers.bytes(offset) + pixels.tobytes() + numbers.bytes(size + behind)
        if number % 2:  # the image lies in front of the mask
            image_at, mask_at = offset, offset + size
        else:
            before = before[:offset] + before[offset + size :] + before[offset : offset + size]
            image_at, mask_at = len(before) - size, offset
        with segment(before) as name:
            image = image_in(handle(name, size, image_at), width=width, height=height)
            must_answer(run, stub, mask_in(handle(name, size, mask_at), image))
            after = path_of(name).read_bytes()
        assert after[:mask_at] + after[mask_at + size :] == before[:mask_at] + before[mask_at + size :], (name, mask_at)
        assert after[mask_at : mask_at + size] == mask_of(pixels).tobytes()
