"""The results that the page shows, in a database of its own: written here, read in history.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dashboard.result import Result
from dashboard.results_file import NewLines, Piece
from dashboard.windows import KEPT_FOR

VERSION = 1
"""Of the schema, in the database's `user_version`."""
KEPT_RESULTS = 200_000
"""Each for itself; some 25 MB. Counts and scores are kept for half a year."""
KEPT_PIECES = 100
PATIENCE_S = 5.0
ADD_TO_TALLY = (
    "INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (line, span, start) DO UPDATE SET "
    "passed = passed + excluded.passed, rejected = rejected + excluded.rejected, "
    "uncertain = uncertain + excluded.uncertain, unanswered = unanswered + excluded.unanswered, "
    "anomalous = anomalous + excluded.anomalous, "
    # SQLite's min and max of two are NULL where one is.
    "lowest = coalesce(min(lowest, excluded.lowest), lowest, excluded.lowest), "
    "below = coalesce(max(below, excluded.below), below, excluded.below), "
    "above = coalesce(min(above, excluded.above), above, excluded.above), "
    "highest = coalesce(max(highest, excluded.highest), highest, excluded.highest), "
    "threshold = coalesce(excluded.threshold, threshold)"
)
SCHEMA = Path(__file__).with_name("schema.sql")


class NotYetMade(Exception):
    """There is no store yet, or one of another version that will be put aside."""


class StoreUnusable(Exception):
    """It is put aside, and a new one has to be made. Its text says where it is now and why."""


@dataclass
class _Tally:
    """What has to be added to one row of `tally`."""

    passed: int = 0
    rejected: int = 0
    uncertain: int = 0
    unanswered: int = 0
    anomalous: int = 0
    lowest: float | None = None
    below: float | None = None
    above: float | None = None
    highest: float | None = None
    threshold: float | None = None

    def count(self, result: Result) -> None:
        self.passed += result.outcome == "pass"
        self.rejected += result.outcome == "reject"
        self.uncertain += result.outcome == "uncertain"
        self.unanswered += result.outcome == "unanswered"
        self.anomalous += result.is_anomalous
        if result.score is None or result.threshold is None:
            return
        self.lowest = _of_both(min, self.lowest, result.score)
        self.highest = _of_both(max, self.highest, result.score)
        if result.score < result.threshold:
            self.below = _of_both(max, self.below, result.score)
        else:
            self.above = _of_both(min, self.above, result.score)
        self.threshold = result.threshold


def _of_both(choose: Callable[[float, float], float], so_far: float | None, score: float) -> float:
    return score if so_far is None else choose(so_far, score)


class Store:
    """For one thread, the only one that writes. Every method raises sqlite3.Error where the disk does not let it."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it. Raises StoreUnusable, OSError and sqlite3.Error."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._database = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
        try:
            self._prepare()
            self._lines = self._known_lines()
        except sqlite3.DatabaseError as error:
            self._database.close()
            self._put_aside_if_damaged(error)
            raise

    def close(self) -> None:
        """Readers are not disturbed."""
        self._database.close()

    def position(self, piece: Piece) -> int:
        """How far a piece has been read, in bytes."""
        question = "SELECT position FROM piece WHERE path = ? AND beginning = ?"
        row = self._database.execute(question, (piece.path, piece.beginning)).fetchone()
        return row[0] if row else 0

    def add(self, read: NewLines, results: Iterable[Result], now: float) -> int:
        """Keep results, and that they were read: both or neither. Returns how many of them were new.

        `now`: seconds since 1970. Raises StoreUnusable where the database turns out to be damaged.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                added = self._add(results, now)
                self._note(read)
                self._forget(now)
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # a full disk may have ended it already
                    self._database.execute("ROLLBACK")
                self._lines = self._known_lines()
                raise
        except sqlite3.DatabaseError as error:
            self._put_aside_if_damaged(error)
            raise
        return added

    def _prepare(self) -> None:
        [[version]] = self._database.execute("PRAGMA user_version").fetchall()
        [[tables]] = self._database.execute("SELECT count(*) FROM sqlite_master").fetchall()
        if tables and version != VERSION:
            self._put_aside(f"version-{version}", f"it is of version {version}, and this program's is {VERSION}")
        [verdict] = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            self._put_aside("damaged", verdict)
        # Readers and the writer do not wait for each other, and a power failure costs the last second, not the file.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            self._database.executescript(f"BEGIN; {SCHEMA.read_text()} PRAGMA user_version = {VERSION}; COMMIT;")

    def _put_aside_if_damaged(self, error: sqlite3.DatabaseError) -> None:
        # Its descendants mean a disk that is full or away, a lock, a wrong statement: the file is good.
        if type(error) is sqlite3.DatabaseError:
            self._put_aside("damaged", str(error))

    def _put_aside(self, suffix: str, why: str) -> None:
        self._database.close()
        aside = self._path.with_name(f"{self._path.name}.{suffix}")
        self._path.replace(aside)
        for name in ("-wal", "-shm"):  # a new database must not take them for its own
            self._path.with_name(self._path.name + name).unlink(missing_ok=True)
        raise StoreUnusable(
            f"{self._path} is put aside as {aside.name} ({why}); results are read anew from their files"
        )

    def _add(self, results: Iterable[Result], now: float) -> int:
        tallies: dict[tuple[int, int, int], _Tally] = {}
        added = 0
        for result in results:
            line = self._line(result)
            if not self._insert(line, result):
                continue
            added += 1
            second = result.at // 1000
            for span, kept_for in KEPT_FOR.items():
                if second > now - kept_for:
                    tallies.setdefault((line, span, second - second % span), _Tally()).count(result)
        self._database.executemany(
            ADD_TO_TALLY,
            [(*key, *vars(tally).values()) for key, tally in tallies.items()],
        )
        return added

    def _insert(self, line: int, result: Result) -> bool:
        """Whether it is new: a file that was copied or restored tells some again."""
        row = (result.id, line, result.at, result.outcome, result.reason, result.score, result.threshold, result.found)
        statement = (
            "INSERT OR IGNORE INTO result (id, line, at, outcome, reason, score, threshold, found) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        return self._database.execute(statement, row).rowcount == 1

    def _line(self, result: Result) -> int:
        names = (result.camera, result.model)
        if names not in self._lines:
            self._database.execute("INSERT OR IGNORE INTO line (camera, model) VALUES (?, ?)", names)
            row = self._database.execute("SELECT key FROM line WHERE camera = ? AND model = ?", names).fetchone()
            self._lines[names] = row[0]
        return self._lines[names]

    def _known_lines(self) -> dict[tuple[str, str], int]:
        rows = self._database.execute("SELECT camera, model, key FROM line").fetchall()
        return {(camera, model): key for camera, model, key in rows}

    def _note(self, read: NewLines) -> None:
        self._database.execute(
            "INSERT INTO piece (path, beginning, position) VALUES (?, ?, ?) "
            "ON CONFLICT (path, beginning) DO UPDATE SET position = excluded.position",
            (read.piece.path, read.piece.beginning, read.position),
        )

    def _forget(self, now: float) -> None:
        """Keep within bounds; each statement finds what it removes by a key."""
        delete = self._database.execute
        delete("DELETE FROM result WHERE key <= (SELECT max(key) FROM result) - ?", (KEPT_RESULTS,))
        delete("DELETE FROM piece WHERE key <= (SELECT max(key) FROM piece) - ?", (KEPT_PIECES,))
        for line in self._lines.values():
            for span, kept_for in KEPT_FOR.items():
                delete("DELETE FROM tally WHERE line = ? AND span = ? AND start <= ?", (line, span, now - kept_for))


@contextmanager
def open_for_reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one page, which leaves the database as it is: by the next it may be another file.

    Raises NotYetMade, and sqlite3.Error where it cannot be read.
    """
    if not path.exists():
        raise NotYetMade
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE_S)) as database:
        database.row_factory = sqlite3.Row
        if database.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            raise NotYetMade
        yield database
