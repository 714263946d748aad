"""What stands between the page and the network: who may ask, and what browsers may do with the answer."""

from __future__ import annotations

import ipaddress
import re
import socket

from flask import Flask, Response, abort, request

from dashboard.settings import Settings

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HOST = re.compile(r"\[(?P<six>[0-9a-fA-F:.]+)\](:\d+)?|(?P<name>[^:]*)(:\d+)?")


def guard(app: Flask, settings: Settings) -> None:
    """Check each request, and mark each answer."""
    names = {name.lower() for name in ("localhost", socket.gethostname(), settings.host, *settings.names)}

    @app.before_request
    def check_host() -> None:
        # A page elsewhere may give its own name our address (DNS rebinding), and then read ours: so only names that are
        # ours. Addresses cannot be given away like that.
        name = _name_in(request.headers.get("Host", ""))
        if name not in names and not _is_address(name):
            abort(421, "This device has another name: use its address, or tell live_view.py the name with --names.")

    @app.after_request
    def mark(response: Response) -> Response:
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _name_in(host: str) -> str:
    match = _HOST.fullmatch(host)
    return (match["six"] or match["name"]).lower() if match else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
