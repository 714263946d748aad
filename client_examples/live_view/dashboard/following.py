"""The thread that follows the files of results into the store."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

from dashboard.complaint import Complaint
from dashboard.result import DamagedLine, Result, read_line
from dashboard.results_file import NewLines, ResultsFile
from dashboard.store import Store, StoreUnusable

LOOK_EVERY_S = 0.5
AGAIN_AFTER_S = 2.0


class Following:
    """Reads what is new twice a second, for ever, whatever happens to files and disk.

    Nothing is lost while the store cannot be written: lines wait in their files and are read later.
    """

    def __init__(self, files: tuple[Path, ...], store: Path) -> None:
        self._paths, self._store_path = files, store
        self._store: Store | None = None
        self._files: list[ResultsFile] = []
        self._complaint_of = {path: Complaint("results") for path in files}
        self._store_complaint = Complaint("store")
        self._doubted = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)
        self.damaged_lines = 0
        """Skipped since this program started."""

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Finish what is in hand, for at most `patience` seconds."""
        self._stop.set()
        self._thread.join(patience)

    @property
    def problems(self) -> list[str]:
        """What is wrong now, a sentence each."""
        complaints = [self._store_complaint, *self._complaint_of.values()]
        return [complaint.standing for complaint in complaints if complaint.standing]

    def doubt(self) -> None:
        """Somebody who read the store found it damaged: have it looked at."""
        self._doubted.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look(self._open())
                self._store_complaint.is_over()
                pause = LOOK_EVERY_S
            except StoreUnusable as problem:
                self._close()
                logging.getLogger("store").warning(str(problem))
                pause = LOOK_EVERY_S
            except (sqlite3.Error, OSError) as error:
                self._store_complaint.say(
                    f"{self._store_path} cannot be written ({error}); results wait in their files"
                )
                pause = AGAIN_AFTER_S
            except Exception as error:  # the page goes on with what is there
                problem = f"results cannot be read: {error!r}, which nobody foresaw; tried again, and the log says more"
                self._store_complaint.say(problem, traceback=True)
                pause = AGAIN_AFTER_S
            self._stop.wait(pause)
        self._close()

    def _open(self) -> Store:
        if self._doubted.is_set():
            self._doubted.clear()
            self._close()
        if self._store is None:
            self._store = Store(self._store_path)
            # What was read of a file into another store counts for nothing.
            self._files = [ResultsFile(path) for path in self._paths]
        return self._store

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _look(self, store: Store) -> None:
        for file in self._files:
            complaint = self._complaint_of[file.path]
            try:
                for read in file.new_lines(store):
                    store.add(read, self._results(read), time.time())
                    if self._stop.is_set():
                        return
            except FileNotFoundError:
                complaint.say(f"{file.path} is not there yet; the camera client writes it (json_lines)")
            except OSError as error:
                complaint.say(
                    f"{file.path} cannot be read: {error.strerror}; it has to be the camera client's json_lines.path, "
                    "and this user has to be allowed to read it"
                )
            else:
                complaint.is_over()

    def _results(self, read: NewLines) -> list[Result]:
        results, problems = [], []
        for line in filter(bytes.strip, read.lines):
            try:
                results.append(read_line(line))
            except DamagedLine as problem:
                problems.append(problem)
        if problems:
            self.damaged_lines += len(problems)
            log = logging.getLogger("results")
            log.warning(
                f"{read.piece.path}: {len(problems)} damaged lines are skipped, the first because: {problems[0]}"
            )
        return results
