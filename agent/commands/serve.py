"""`edge-agent serve`: settings, socket, fleet, server, signals, and the way back."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from agent.settings import Settings, environment_name_of, flag_of, kind_of, read_settings

if TYPE_CHECKING:
    import grpc

    from agent.models.fleet import Fleet
    from agent.rpc.socket_claim import SocketClaim

DRAIN_LIMIT = 3.5
"""Seconds for calls in hand after SIGTERM; with what follows it stays below the nucleus's 5 s."""
READ_TIME = 0.1
"""Seconds of these that clients have to read their answers."""
REGISTRY_INTERVAL = 0.5
"""Seconds between two looks at the registry."""

ASKS_TO_STOP = {signal.SIGTERM, signal.SIGINT}

WANTED = ".wanted-models"
"""File beside the records: what is to run again after a restart of the agent."""

WRONG_SETTING = 2
ANOTHER_AGENT = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help='JSON file with settings, such as {"Threads": 2}')
    for setting in fields(Settings):
        allowed, default = kind_of(setting).allowed, setting.metadata["shown"]
        sentence = (
            f"{setting.metadata['sentence']} Allowed: {allowed}. Default: {default}. "
            f"Environment: {environment_name_of(setting.name)}."
        )
        parser.add_argument(
            flag_of(setting.name),
            metavar=setting.name.upper().rpartition("_")[2],
            help=sentence.replace("%", "%%"),
        )


def run(arguments: argparse.Namespace) -> int:
    from agent.errors import Refusal

    try:
        settings = read_settings(vars(arguments), os.environ, arguments.config)
    except Refusal as refusal:
        print(f"edge-agent serve: {refusal}", file=sys.stderr)
        return WRONG_SETTING

    if settings.registry.exists() and not settings.registry.is_dir():
        print(f"edge-agent serve: the registry {settings.registry} is no directory.", file=sys.stderr)
        return WRONG_SETTING

    # Before there are other threads, so that all block them: the kernel may give a signal to any thread, and while the
    # main one slept in a lock it did not learn of it (5 of 55 SIGTERMs were lost so while calls came in).
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKS_TO_STOP)

    # The claim comes before the heavy imports: an agent that is one too many leaves at once.
    from agent.rpc.socket_claim import AnotherAgentServes, SocketClaim, SocketPathNotUsable

    try:
        claim = SocketClaim(Path(settings.socket.removeprefix("unix://")))
    except AnotherAgentServes as refusal:
        print(f"edge-agent serve: {refusal}", file=sys.stderr)
        return ANOTHER_AGENT
    except SocketPathNotUsable as refusal:
        print(f"edge-agent serve: {refusal}", file=sys.stderr)
        return WRONG_SETTING
    try:
        return _serve(settings, claim)
    except SocketPathNotUsable as refusal:  # the group or the mode cannot be set
        print(f"edge-agent serve: {refusal}", file=sys.stderr)
        return WRONG_SETTING
    finally:
        claim.release()


def _serve(settings: Settings, claim: SocketClaim) -> int:
    import grp

    from agent.logs import set_up_logging

    set_up_logging(settings.log_format, settings.log_level)  # before gRPC is imported

    from agent import __version__
    from agent.allocator import keep_freed_memory
    from agent.models.fleet import Fleet
    from agent.models.keeper import ModelSettings
    from agent.models.memory import memory_to_load
    from agent.models.registry import Registry, RegistryWatch
    from agent.models.wanted import WantedModels
    from agent.rpc.health import Health
    from agent.rpc.server import make_server, serve_at
    from agent.rpc.service import EdgeAgent
    from agent.workers.process import WorkerProcess

    keep_freed_memory()
    log = logging.getLogger("agent")
    threads = settings.threads or len(os.sched_getaffinity(0))
    health = Health()
    fleet = Fleet(
        lambda folder, slots, on_progress, on_end: WorkerProcess(
            folder, threads, slots, on_progress, on_end, memory_to_load()
        ),
        ModelSettings(
            settings.calls_in_flight,
            settings.queue_length,
            settings.load_time_limit,
            settings.run_time_limit,
            settings.worker_growth << 20,
            settings.unload_first,
        ),
        WantedModels(settings.registry / WANTED),
        auto_start=settings.auto_start,
        on_change=health.model_changed,
    )
    watch = RegistryWatch(Registry(settings.registry), fleet.apply, REGISTRY_INTERVAL)

    server = make_server(EdgeAgent(fleet), health, settings.message_memory << 20)
    watch.start()
    try:
        group = grp.getgrnam(settings.socket_group).gr_gid if settings.socket_group else None
        serve_at(server, claim, settings.socket_mode, group)
        log.info("edge-agent %s serves %s, registry %s", __version__, settings.socket, settings.registry)
        signal.sigwait(ASKS_TO_STOP)
        log.info("asked to stop: no new calls; calls in hand have %g s", DRAIN_LIMIT)
        claim.withdraw()
        health.shutting_down()
        _drain(fleet, server)
    finally:
        server.stop(None).wait()
        watch.stop()
        fleet.close()
    log.info("stopped")
    return 0


def _drain(fleet: Fleet, server: grpc.Server) -> None:
    """Answers the calls in hand, in DRAIN_LIMIT seconds or not at all."""
    deadline = time.monotonic() + DRAIN_LIMIT
    fleet.drain(DRAIN_LIMIT - READ_TIME)
    # The server closes each connection with its last answer, and a client of gRPC that writes just then finds that out
    # and forgets what it has not read: 9 of 600 stops lost answers so (grpcio 1.85).
    time.sleep(READ_TIME)
    server.stop(max(0.0, deadline - time.monotonic())).wait()
