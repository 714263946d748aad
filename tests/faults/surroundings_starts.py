"""Serves on a socket and leaves it again, for each line on standard input, as often as asked; no start costs an import.

    python -m tests.faults.surroundings_starts SOCKET MODE GROUP

Gives a sign on standard output when clients can come, and when it has left. The umask is the most generous one: who
forgets his own shows.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from agent.rpc.server import serve_at
from agent.rpc.socket_claim import SocketClaim

SIGNS = 1
"""Standard output's descriptor: one byte is one sign, whatever Python is told of buffering."""


def main() -> None:
    path, mode, group = Path(sys.argv[1]), int(sys.argv[2], 8), int(sys.argv[3])
    os.umask(0)
    while sys.stdin.readline():
        claim = SocketClaim(path)
        server = grpc.server(ThreadPoolExecutor(1))
        serve_at(server, claim, mode, group)
        os.write(SIGNS, b".")
        sys.stdin.readline()
        server.stop(0).wait()
        claim.release()
        os.write(SIGNS, b".")


if __name__ == "__main__":
    main()
