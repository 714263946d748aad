"""The page: reads the store and shows it. There is nothing here that changes anything."""

from __future__ import annotations

import socket
import sqlite3
import time
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from flask import Flask, Response, abort, render_template, request
from werkzeug.exceptions import HTTPException

from dashboard import charts, history, words
from dashboard.agent_watch import AgentWatch
from dashboard.complaint import Complaint
from dashboard.following import Following
from dashboard.guard import guard
from dashboard.history import Line, Seen
from dashboard.pictures import Pictures
from dashboard.settings import Settings
from dashboard.store import NotYetMade, open_for_reading
from dashboard.windows import WINDOW_OF, WINDOWS

QUIET_AFTER_S = 60
"""A verdict older than this is no news: it loses its colour, so that nobody takes it for the part before him."""
LAST_VERDICTS, LAST_PICTURES = 40, 8


@dataclass(frozen=True)
class Card:
    """A camera with a model, for choosing it."""

    line: Line
    last: Seen | None  # None: its last result is not among those kept
    is_quiet: bool
    is_chosen: bool


def create_app(settings: Settings, following: Following, agent: AgentWatch) -> Flask:
    """The web application. `following` and `agent` are only looked at."""
    app = Flask(__name__)
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    app.jinja_env.globals.update(
        words=words.OUTCOMES, signs=words.OUTCOME_SIGNS, model_signs=words.STATE_SIGNS, windows=WINDOWS
    )
    app.jinja_env.filters["per_cent"] = words.per_cent
    guard(app, settings)
    page = _Page(settings, following, agent)
    app.add_url_rule("/", "whole", page.whole)
    app.add_url_rule("/now", "now", page.now)
    app.add_url_rule("/history", "history", page.history)
    app.add_url_rule("/pictures/<result_id>", "picture", page.picture)
    app.register_error_handler(HTTPException, _refusal)
    return app


class _Page:
    """One method for each address."""

    def __init__(self, settings: Settings, following: Following, agent: AgentWatch) -> None:
        self._following, self._agent = following, agent
        self._store = Path(settings.store)
        self._pictures = Pictures(settings.overlays)
        self._complaint = Complaint("store")

    def whole(self) -> str:
        """All of it; live.js asks for its two parts from then on."""
        device = socket.gethostname()
        return render_template("page.html", device=device, **self._what_is_now(), **self._what_was())

    def now(self) -> str:
        """What changes with every part: verdicts, pictures, models."""
        return render_template("now.html", **self._what_is_now())

    def history(self) -> str:
        """What changes slowly: counts and charts."""
        return render_template("history.html", **self._what_was())

    def picture(self, result_id: str) -> Response:
        """A picture with what was found drawn over it."""
        try:
            with open_for_reading(self._store) as database:
                outcome = history.outcome_of(database, result_id)
        except (NotYetMade, sqlite3.Error):
            outcome = None
        content = self._pictures.read(result_id, outcome) if outcome else None
        if content is None:
            abort(404, "There is no such picture (any more).")
        # The picture of an id never changes.
        return Response(content, mimetype="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})

    def _what_is_now(self) -> dict[str, Any]:
        zone, now = _zone(), time.time()
        problems = self._problems(now, zone)
        told: dict[str, Any] = {"cards": [], "chosen": None, "verdicts": [], "pictures": [], "latest_picture": None}
        try:
            with open_for_reading(self._store) as database:
                told |= self._last_results(database, now)
            self._complaint.is_over()
        except NotYetMade:
            pass  # no results yet, says the page
        except sqlite3.Error as error:
            problems.append(self._unreadable(error))
        return told | {
            "agent": self._agent.view,
            "problems": problems,
            "time": lambda milliseconds: words.time_of(milliseconds / 1000, now, zone),
            "age": lambda milliseconds: words.age(now - milliseconds / 1000),
        }

    def _problems(self, now: float, zone: tzinfo) -> list[str]:
        """What somebody should look after, a sentence each."""
        view, problems = self._agent.view, self._following.problems
        if view.problem and view.since:
            since = words.time_of(view.since, now, zone)
            problems.insert(0, f"The agent does not answer since {since}: {view.problem}")
        problems += [f"The model {model.component} is FAILED: {model.status_message}" for model in view.failed]
        if self._following.damaged_lines:
            problems.append(f"{self._following.damaged_lines} damaged lines of results were skipped; the log says why")
        return problems

    def _last_results(self, database: sqlite3.Connection, now: float) -> dict[str, Any]:
        lines = history.lines(database)
        chosen, cards = _chosen(lines), []
        for line in lines:
            last = next(iter(history.last(database, line, 1)), None)
            is_quiet = last is None or abs(now - last.at / 1000) > QUIET_AFTER_S  # a clock may have been set back
            cards.append(Card(line, last, is_quiet, line == chosen))
        if chosen is None:
            return {"cards": cards}
        verdicts = history.last(database, chosen, LAST_VERDICTS)
        to_look_at = history.last_to_look_at(database, chosen, LAST_PICTURES)
        return {
            "cards": cards,
            "chosen": next(card for card in cards if card.is_chosen),
            "verdicts": verdicts,
            "pictures": [(seen, self._pictures.has(seen.id, seen.outcome)) for seen in to_look_at],
            "latest_picture": next((seen for seen in verdicts[:1] if self._pictures.has(seen.id, seen.outcome)), None),
        }

    def _what_was(self) -> dict[str, Any]:
        zone, now = _zone(), time.time()
        window = WINDOW_OF.get(request.args.get("window", ""), WINDOWS[0])
        axis = charts.Axis(window, now, zone)
        told: dict[str, Any] = {"window": window, "line": None, "zone": datetime.fromtimestamp(now, zone).tzname()}
        try:
            with open_for_reading(self._store) as database:
                line = _chosen(history.lines(database))
                if line is None:
                    return told
                bars = history.bars(database, line, window, now, axis.offset)
                return told | {
                    "line": line,
                    "counts": history.counts(database, line, now),
                    "counts_chart": charts.counts_chart(bars, axis),
                    "ratio_chart": charts.ratio_chart(bars, axis),
                    "score_chart": charts.score_chart(history.scores(database, line, window, now), axis),
                }
        except NotYetMade:
            return told
        except sqlite3.Error as error:
            self._unreadable(error)
            return told

    def _unreadable(self, error: sqlite3.Error) -> str:
        """What to say of it."""
        if type(error) is sqlite3.DatabaseError:  # not one of its descendants: the file itself is damaged
            self._following.doubt()
        self._complaint.say(f"{self._store} cannot be read: {error}")
        return f"The stored results cannot be read ({error})"


def _chosen(lines: list[Line]) -> Line | None:
    """By the page's address; else the first."""
    camera, model = request.args.get("camera"), request.args.get("model")
    asked = [line for line in lines if line.camera == camera and model in (None, line.model)]
    return next(iter(asked or lines), None)


def _zone() -> tzinfo:
    """The reader's time zone, which live.js tells; else this device's."""
    try:
        return ZoneInfo(request.args["zone"])
    except (KeyError, ValueError, OSError):  # a device may know no zones
        return datetime.now(timezone.utc).astimezone().tzinfo or timezone.utc


def _refusal(error: HTTPException) -> tuple[str, int, dict[str, str]]:
    return f"{error.description}\n", error.code or 500, {"Content-Type": "text/plain; charset=utf-8"}
