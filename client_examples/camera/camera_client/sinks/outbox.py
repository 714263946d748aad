"""Messages that wait to be sent: in memory while the connection is good, on disk while it is not."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camera_client.complaint import Complaint

TO_DISK_EVERY_S = 1.0
MOST_IN_MEMORY = 1000


@dataclass(frozen=True)
class Message:
    """One message; later ones have a higher `key`."""

    key: int
    payload: bytes


class Outbox:
    """First in, first out, within a number of messages; beyond it the oldest go, and are counted.

    A healthy connection costs no disk writes (flash wears out). While nothing can be sent, what waits is written to
    disk every second, and at the end: a process that is killed loses what came in the last second.
    On disk are always older ones than in memory.
    """

    def __init__(self, path: Path, most_waiting: int) -> None:
        self._path, self._most = path, most_waiting
        self._memory: deque[Message] = deque()
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._complaint = Complaint("outbox")
        self._sent_key = 0  # all up to this one are sent or dropped, also where the disk could not be told
        self._on_disk, self._last_key = self._state_of_disk()
        self._good_until = time.monotonic()  # when something was sent last, or written to disk
        self.dropped = 0

    def __len__(self) -> int:
        with self._lock:
            return self._on_disk + len(self._memory)

    def add(self, payload: bytes) -> None:
        """Take a message; waits for no connection."""
        with self._arrived:
            now = time.monotonic()
            if not len(self):
                self._good_until = now
            self._last_key += 1
            self._memory.append(Message(self._last_key, payload))
            if now - self._good_until > TO_DISK_EVERY_S:
                self._good_until = now
                self.to_disk()
            self._drop_what_is_too_much()
            self._arrived.notify()

    def first(self, most: int, timeout: float) -> list[Message]:
        """The oldest messages, at most `most`; as soon as there is one, or none after `timeout` seconds."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self) > 0, timeout)
            return self._read_from_disk(most) if self._on_disk else list(self._memory)[:most]

    def sent(self, last_key: int) -> None:
        """All up to this one need not wait any more."""
        with self._lock:
            self._good_until = time.monotonic()
            self._forget(last_key)

    def to_disk(self) -> None:
        """Write what waits in memory to disk; where there is no room, it stays."""
        with self._lock:
            rows = [(message.key, message.payload) for message in self._memory]
            if rows and self._change("INSERT INTO message (key, payload) VALUES (?, ?)", rows):
                self._on_disk += len(rows)
                self._memory.clear()

    def _drop_what_is_too_much(self) -> None:
        too_many = max(len(self) - self._most, 0)
        if too_many and self._on_disk:
            oldest = self._read_from_disk(too_many)
            if oldest:
                self._forget(oldest[-1].key)
                self.dropped += len(oldest)
        while len(self._memory) > min(MOST_IN_MEMORY, self._most):
            self._memory.popleft()
            self.dropped += 1

    def _forget(self, last_key: int) -> None:
        self._sent_key = max(self._sent_key, last_key)
        while self._memory and self._memory[0].key <= last_key:
            self._memory.popleft()
        if self._on_disk:
            self._change("DELETE FROM message WHERE key <= ?", [(last_key,)])
            self._on_disk, _ = self._state_of_disk()

    def _read_from_disk(self, most: int) -> list[Message]:
        question = "SELECT key, payload FROM message WHERE key > ? ORDER BY key LIMIT ?"
        return [Message(key, payload) for key, payload in self._ask(question, (self._sent_key, most))]

    def _state_of_disk(self) -> tuple[int, int]:
        """How many messages wait there, and the last one's key."""
        if not self._path.exists():
            return 0, 0
        rows = self._ask("SELECT count(*), max(key) FROM message WHERE key > ?", (self._sent_key,))
        return (rows[0][0], rows[0][1] or 0) if rows else (0, 0)

    def _ask(self, question: str, values: tuple[int, ...]) -> list[tuple[Any, ...]]:
        try:
            with closing(self._open()) as database:
                return database.execute(question, values).fetchall()
        except sqlite3.OperationalError as error:
            self._complaint.say(f"{self._path} cannot be read: {error}")
        except sqlite3.DatabaseError as error:  # what a power failure can leave of a file
            aside = self._path.with_suffix(".damaged")
            self._complaint.say(f"{self._path} is put aside as {aside.name}: {error}")
            self._path.replace(aside)
        return []

    def _change(self, statement: str, rows: list[tuple[Any, ...]]) -> bool:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as database, database:
                database.executemany(statement, rows)
        except (OSError, sqlite3.Error) as error:
            self._complaint.say(f"{self._path} cannot be written: {error}")
            return False
        self._complaint.is_over()
        return True

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path)
        database.execute("CREATE TABLE IF NOT EXISTS message (key INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
        return database
