"""The socket that the page is served at."""

from __future__ import annotations

import errno
import socket

from dashboard.settings import Settings, WrongSetting


def open_door(settings: Settings) -> socket.socket:
    """Bound, not yet listening. Raises WrongSetting where the address is none of this device or in use."""
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise _no_address(settings, error) from None
    door = socket.socket(family, kind, protocol)
    try:
        # The page is back at once after a restart, although connections of the one before may linger.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
    except OSError as error:
        door.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise _no_address(settings, error) from None
        raise WrongSetting(f"port: {settings.host}:{settings.port}: {error.strerror}; choose another") from None
    return door


def address_of(settings: Settings, door: socket.socket) -> str:
    """The page's, for a browser on this device."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{door.getsockname()[1]}/"


def _no_address(settings: Settings, error: OSError) -> WrongSetting:
    return WrongSetting(f"host: {settings.host} is no address of this device: {error.strerror}")
