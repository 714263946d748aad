"""A client that keeps changing its segment, as a process of its own so that it really races with the agent.

    python segments_storm.py {shrink,flip} PATH

Goes on until its standard input ends, so never longer than whoever started it; prints how many changes it made.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import threading
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

FLIPPED = (0, 255)
"""What `flip` writes into the segment's first byte in turn."""


def shrink(path: Path) -> Iterator[None]:
    """Each time cuts the segment off somewhere, or unlinks it, and makes it whole again; all its bytes stay 0."""
    size, chance = path.stat().st_size, random.Random(7)
    while True:
        if chance.random() < 0.1:
            path.unlink()
            path.touch()
        else:
            os.truncate(path, chance.choice((0, size - 1, chance.randrange(size))))
        os.truncate(path, size)
        yield


def flip(path: Path) -> Iterator[None]:
    """Each time changes the segment's first byte."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        for value in cycle(FLIPPED):
            mapped[0] = value
            yield


def main() -> None:
    changes = {"shrink": shrink, "flip": flip}[sys.argv[1]](Path(sys.argv[2]))
    ended, made = threading.Event(), 0
    threading.Thread(target=lambda: (os.read(0, 1), ended.set()), daemon=True).start()
    print("begun", flush=True)
    while not ended.is_set():
        next(changes)
        made += 1
    print(made)


if __name__ == "__main__":
    main()
