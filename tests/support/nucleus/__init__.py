"""A nucleus for tests: the server side of Greengrass IPC on a unix socket, for the SDK's real client."""

from tests.support.nucleus.double import Nucleus

__all__ = ["Nucleus"]
