"""Messages that wait to be sent: in memory while the connection is good, on disk while it is not."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camera_client.complaint import Complaint

TO_DISK_AFTER_S = 1.0
MOST_IN_MEMORY = 1000


@dataclass(frozen=True)
class Message:
    """One message; later ones have a higher `key`."""

    key: int
    payload: bytes
    since: float = 0.0  # seconds on the monotonic clock


class Outbox:
    """First in, first out, within a number of messages; beyond it the oldest go, and are counted.

    A healthy connection costs no disk writes (flash wears out): only what has waited for a second is written to disk,
    by whoever calls `keep` now and then. On disk are always older ones than in memory. `add` never waits for a disk.
    """

    def __init__(self, path: Path, most_waiting: int) -> None:
        self._path, self._most = path, most_waiting
        self._complaint = Complaint("outbox")
        self._disk = threading.Lock()  # taken before `_arrived`, where both are needed
        self._arrived = threading.Condition()
        self._memory: deque[Message] = deque()
        self._on_disk = 0
        self._done_key = 0  # all up to this one are sent or dropped, also where the disk could not be told
        # No keys twice, also where the file is not there yet: a disk that is mounted late brings what waits on it.
        self._last_key = max(self._count_those_on_disk(), time.time_ns())
        self._added, self.acknowledged = self._on_disk, 0

    def __len__(self) -> int:
        return self._on_disk + len(self._memory)

    @property
    def dropped(self) -> int:
        """Neither sent nor waiting any more."""
        with self._arrived:
            return self._added - self.acknowledged - len(self)

    def add(self, payload: bytes) -> None:
        """Take a message."""
        with self._arrived:
            self._last_key += 1
            self._added += 1
            self._memory.append(Message(self._last_key, payload, time.monotonic()))
            if len(self._memory) > min(MOST_IN_MEMORY, self._most):
                self._memory.popleft()
            self._arrived.notify()

    def first(self, most: int, timeout: float) -> list[Message]:
        """The oldest messages, at most `most`; as soon as there is one, or none after `timeout` seconds."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self) > 0, timeout)
        with self._disk:
            if self._on_disk:
                return self._read_from_disk(most) or self._look_again()
            with self._arrived:
                return list(self._memory)[:most]

    def sent(self, messages: list[Message]) -> None:
        """These, the oldest, need not wait any more."""
        with self._disk:
            self.acknowledged += len(messages)
            self._forget(messages[-1].key)

    def keep(self) -> None:
        """Write to disk, if one of those in memory has waited long enough, or memory fills up."""
        with self._arrived:
            has_waited = self._memory and time.monotonic() - self._memory[0].since > TO_DISK_AFTER_S
            fills_up = len(self._memory) > MOST_IN_MEMORY // 2
        if has_waited or fills_up:
            self.to_disk()

    def to_disk(self) -> None:
        """Write what waits in memory to disk, and keep to the bound there; where there is no room, it stays."""
        with self._disk:
            with self._arrived:
                rows = [(message.key, message.payload) for message in self._memory]
            if not rows or not self._change("INSERT INTO message (key, payload) VALUES (?, ?)", rows):
                return
            with self._arrived:
                self._on_disk += len(rows)
                self._forget_in_memory(rows[-1][0])
            too_many = self._read_from_disk(self._on_disk - self._most) if self._on_disk > self._most else []
            if too_many:
                self._forget(too_many[-1].key)

    def _forget(self, last_key: int) -> None:
        self._done_key = max(self._done_key, last_key)
        with self._arrived:
            self._forget_in_memory(last_key)
        if self._on_disk:
            self._change("DELETE FROM message WHERE key <= ?", [(last_key,)])
            self._count_those_on_disk()

    def _forget_in_memory(self, last_key: int) -> None:
        while self._memory and self._memory[0].key <= last_key:
            self._memory.popleft()

    def _read_from_disk(self, most: int) -> list[Message]:
        question = "SELECT key, payload FROM message WHERE key > ? ORDER BY key LIMIT ?"
        return [Message(key, payload) for key, payload in self._ask(question, (self._done_key, most)) or []]

    def _look_again(self) -> list[Message]:
        """Messages that should be on disk are not: somebody has removed the file, or it was put aside."""
        self._count_those_on_disk()
        return []

    def _count_those_on_disk(self) -> int:
        """The key of the last one there. Where the disk cannot be read, the count stays as it is."""
        if not self._is_there():
            self._on_disk = 0
            return 0
        rows = self._ask("SELECT count(*), max(key) FROM message WHERE key > ?", (self._done_key,))
        if not rows:
            return 0
        [(self._on_disk, last_key)] = rows
        return last_key or 0

    def _is_there(self) -> bool:
        try:
            return self._path.exists()
        except OSError:  # nobody may look into its folder: writing will say so
            return False

    def _ask(self, question: str, values: tuple[int, ...]) -> list[tuple[Any, ...]] | None:
        """The rows; None where they cannot be read."""
        try:
            with closing(self._open()) as database:
                return database.execute(question, values).fetchall()
        except sqlite3.Error as error:
            self._cannot("read", error)
            return None

    def _change(self, statement: str, rows: list[tuple[Any, ...]]) -> bool:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as database, database:
                database.executemany(statement, rows)
        except (OSError, sqlite3.Error) as error:
            self._cannot("written", error)
            return False
        self._complaint.is_over()
        return True

    def _cannot(self, be_done: str, error: Exception) -> None:
        """Operational errors (no room, no right, a lock) may pass; others are what a power failure left of a file."""
        self._complaint.say(f"{self._path} cannot be {be_done}: {error}")
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            with contextlib.suppress(OSError):
                self._path.replace(self._path.with_suffix(".damaged"))

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path)
        database.execute("CREATE TABLE IF NOT EXISTS message (key INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
        return database
