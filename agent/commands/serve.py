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

from agent.commands.device_flags import backend_settings
from agent.errors import Refusal
from agent.greengrass.followed_settings import FollowedSettings
from agent.greengrass.nucleus import Nucleus, nucleus_of
from agent.settings import Settings, environment_name_of, flag_of, given_values, kind_of

if TYPE_CHECKING:
    import grpc

    from agent.models.fleet import Fleet
    from agent.models.keeper import ModelSettings
    from agent.models.served_model import OnChange
    from agent.rpc.socket_claim import SocketClaim

log = logging.getLogger("agent")

DRAIN_LIMIT = 3.5
"""Seconds for calls in hand after SIGTERM; with what follows it stays below the nucleus's 5 s."""
READ_TIME = 0.1
"""Seconds of these that clients have to read their answers."""
REGISTRY_INTERVAL = 0.5
"""Seconds between two looks at the registry."""

CONFIGURATION_LIMIT = 5.0
"""Seconds the start waits for the Greengrass configuration; one that comes later is followed all the same."""

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


class PlaceNotUsable(Refusal):
    """Socket or registry cannot be where a setting says; `settings` are the names of those that may be to blame."""

    def __init__(self, refusal: Refusal, *settings: str) -> None:
        super().__init__(str(refusal))
        self.settings = settings


class RegistryIsNoDirectory(Refusal):
    def __init__(self, registry: Path) -> None:
        super().__init__(f"The registry {registry} is no directory; name another one, or remove what lies there.")


def run(arguments: argparse.Namespace) -> int:
    try:
        given = given_values(vars(arguments), os.environ, arguments.config)
    except Refusal as refusal:
        print(f"edge-agent serve: {refusal}", file=sys.stderr)
        return WRONG_SETTING

    # Before there are other threads, so that all block them: the kernel may give a signal to any thread, and while the
    # main one slept in a lock it did not learn of it (5 of 55 SIGTERMs were lost so while calls came in).
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKS_TO_STOP)

    from agent.logs import hold_log_lines, set_up_logging

    hold_log_lines()
    followed = FollowedSettings(given)
    nucleus = nucleus_of(os.environ, followed.follow)
    if nucleus is not None:
        _wait_for_configuration(nucleus)
    settings = followed.settle()
    set_up_logging(settings.log_format, settings.log_level)  # before gRPC is imported
    try:
        return _serve_where_possible(followed, nucleus)
    finally:
        if nucleus is not None:
            nucleus.stop()


def _wait_for_configuration(nucleus: Nucleus) -> None:
    nucleus.start()
    if not nucleus.wait_for_configuration(CONFIGURATION_LIMIT, lambda: bool(signal.sigpending() & ASKS_TO_STOP)):
        log.warning(
            "no Greengrass configuration within %g s: starting without it; what it says is followed once it comes",
            CONFIGURATION_LIMIT,
        )


def _serve_where_possible(followed: FollowedSettings, nucleus: Nucleus | None) -> int:
    """Serves until asked to stop, if need be without the places that the Greengrass configuration names; exit code."""
    from agent.rpc.socket_claim import AnotherAgentServes

    while True:
        try:
            return _claim_and_serve(followed, nucleus)
        except AnotherAgentServes as refusal:
            print(f"edge-agent serve: {refusal}", file=sys.stderr)
            return ANOTHER_AGENT
        except PlaceNotUsable as refusal:
            # A component that ends three times is never started again: no deployment may do that to a line.
            if not followed.leave_out(*refusal.settings):
                print(f"edge-agent serve: {refusal}", file=sys.stderr)
                return WRONG_SETTING
            log.error("%s What the Greengrass configuration says of it is left out until the next start.", refusal)


def _claim_and_serve(followed: FollowedSettings, nucleus: Nucleus | None) -> int:
    """Raises AnotherAgentServes or PlaceNotUsable."""
    # The claim comes before the heavy imports: an agent that is one too many leaves at once.
    from agent.rpc.socket_claim import SocketClaim, SocketPathNotUsable

    settings = followed.in_force
    if settings.registry.exists() and not settings.registry.is_dir():
        raise PlaceNotUsable(RegistryIsNoDirectory(settings.registry), "registry")
    try:
        claim = SocketClaim(Path(settings.socket.removeprefix("unix://")))
    except SocketPathNotUsable as refusal:
        raise PlaceNotUsable(refusal, "socket") from None
    try:
        return _serve(followed, nucleus, claim)
    except SocketPathNotUsable as refusal:  # the group or the mode cannot be set
        raise PlaceNotUsable(refusal, "socket", "socket_mode", "socket_group") from None
    finally:
        claim.release()


def _serve(followed: FollowedSettings, nucleus: Nucleus | None, claim: SocketClaim) -> int:
    import grp

    from agent import __version__
    from agent.allocator import keep_freed_memory
    from agent.logs import set_log_level
    from agent.metrics.catalogue import AgentFigures
    from agent.metrics.endpoint import MetricsEndpoint
    from agent.models.registry import Registry, RegistryWatch
    from agent.rpc.call_counts import CallCounts
    from agent.rpc.health import Health
    from agent.rpc.request_parser import RequestParser
    from agent.rpc.server import make_server, serve_at
    from agent.rpc.service import EdgeAgent

    keep_freed_memory()
    settings, health, counts = followed.in_force, Health(), CallCounts()
    fleet = _make_fleet(followed, health.model_changed)
    watch = RegistryWatch(Registry(settings.registry), fleet.apply, REGISTRY_INTERVAL, fleet.start_due)
    parser = RequestParser(settings.message_memory << 20)
    server = make_server(EdgeAgent(fleet), health, parser, counts)
    metrics = MetricsEndpoint(
        lambda: AgentFigures(__version__, counts.counts(), fleet.images_in_hand, parser.held, fleet.figures())
    )

    def use(changed: Settings) -> None:
        set_log_level(changed.log_level)
        parser.allow(changed.message_memory << 20)
        fleet.use_settings(_model_settings(changed), auto_start=changed.auto_start)
        metrics.use_port(changed.metrics_port)

    followed.on_change(use)
    watch.start()
    try:
        group = grp.getgrnam(settings.socket_group).gr_gid if settings.socket_group else None
        serve_at(server, claim, settings.socket_mode, group)
        log.info("edge-agent %s serves %s, registry %s", __version__, settings.socket, settings.registry)
        if nucleus is not None:
            nucleus.report_running()
        signal.sigwait(ASKS_TO_STOP)
        log.info("asked to stop: no new calls; calls in hand have %g s", DRAIN_LIMIT)
        claim.withdraw()
        health.shutting_down()
        _drain(fleet, server)
    finally:
        server.stop(None).wait()
        watch.stop()
        fleet.close()
        metrics.close()
    log.info("stopped")
    return 0


def _make_fleet(followed: FollowedSettings, on_change: OnChange) -> Fleet:
    from agent.models.fleet import Fleet
    from agent.models.memory import memory_to_load
    from agent.models.wanted import WantedModels
    from agent.workers.process import WorkerProcess

    settings = followed.in_force
    return Fleet(
        lambda record, slots, on_progress, on_end: WorkerProcess(
            Path(record.path),
            backend_settings(followed.in_force, record.component),
            slots,
            on_progress,
            on_end,
            memory_to_load(),
        ),
        _model_settings(settings),
        WantedModels(settings.registry / WANTED),
        auto_start=settings.auto_start,
        on_change=on_change,
    )


def _model_settings(settings: Settings) -> ModelSettings:
    from agent.models.keeper import ModelSettings

    return ModelSettings(
        settings.calls_in_flight,
        settings.queue_length,
        settings.load_time_limit,
        settings.run_time_limit,
        settings.worker_growth << 20,
        settings.unload_first,
    )


def _drain(fleet: Fleet, server: grpc.Server) -> None:
    """Answers the calls in hand, in DRAIN_LIMIT seconds or not at all."""
    deadline = time.monotonic() + DRAIN_LIMIT
    fleet.drain(DRAIN_LIMIT - READ_TIME)
    # The server closes each connection with its last answer, and a client of gRPC that writes just then finds that out
    # and forgets what it has not read: 9 of 600 stops lost answers so (grpcio 1.85).
    time.sleep(READ_TIME)
    server.stop(max(0.0, deadline - time.monotonic())).wait()
