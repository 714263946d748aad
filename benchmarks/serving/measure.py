"""Rounds of turns: in each round every subject has one turn, in an order drawn by chance."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec
from tqdm import tqdm

from benchmarks.serving.model import Package
from benchmarks.serving.orders import Contender, Order, Span
from benchmarks.serving.processes import LoadProcess, load_processes
from benchmarks.serving.results import SCORES_AGREE, Results, Subject, Turn, check_answers
from benchmarks.serving.servers import COMPONENT

CLIENTS = 8
IN_FLIGHT = 2
"""Turns of the bare loop at once where its capacity is asked for: as many as the agent works on."""
CLIENT_PROCESSES = 2
"""One interpreter for eight clients would be what is measured."""
LEAD = 0.05
"""Seconds between telling the load processes when to begin and the beginning."""
SETTLING = 0.2
"""Seconds before each turn whose calls do not count."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    sizes: Sequence[tuple[int, int]]
    rounds: int
    seconds: float
    """Of a turn."""
    seed: int


def measure(
    plan: Plan, package: Package, addresses: Mapping[Contender, str], scores_agree: float = SCORES_AGREE
) -> Results:
    """All turns of the bare loop and of those in `addresses` (sockets); the agent serves `package` as COMPONENT.

    `scores_agree`: how far scores may be from the bare loop's, and areas five times as far.

    Raises:
        WrongAnswer: somebody did something else than the floor.
    """
    subjects = [
        Subject(package.task, size, contender, clients)
        for size in plan.sizes
        for contender in ("floor", *addresses)
        for clients in (1, CLIENTS)
    ]
    results: Results = {subject: [] for subject in subjects}
    shuffle = random.Random(plan.seed).shuffle
    with ExitStack() as opened, tqdm(total=plan.rounds * len(subjects), unit="turn", disable=None) as progress:
        floors = opened.enter_context(load_processes(1))
        clients = opened.enter_context(load_processes(CLIENT_PROCESSES))
        for _ in range(plan.rounds):
            shuffle(subjects)
            for subject in subjects:
                progress.set_description(f"{subject.task} {subject.size[0]} {subject.contender}")
                order = _order(subject, package, addresses)
                processes = floors if subject.contender == "floor" else clients
                results[subject].append(take_turn(processes, order, plan.seconds))
                progress.update()
    check_answers(results, scores_agree)
    return results


def take_turn(processes: Sequence[LoadProcess], order: Order, seconds: float) -> Turn:
    """Carries out `order`, its clients spread over the processes."""
    return take_turns_together([(processes, order)], seconds)[0]


def take_turns_together(
    orders: Sequence[tuple[Sequence[LoadProcess], Order]], seconds: float, settling: float = SETTLING
) -> list[Turn]:
    """Carries out several orders at the same time, each by processes of its own."""
    shares = [spread(order, processes) for processes, order in orders]
    everybody = [share for order in shares for share in order]
    for process, order in everybody:
        process.send(order)
    for process, _ in everybody:
        process.wait_until_ready()
    begin = time.monotonic() + LEAD
    span = Span(begin, begin + settling, begin + settling + seconds)
    for process, _ in everybody:
        process.send(span)
    return [Turn([call for process, _ in order for call in process.calls()], span) for order in shares]


def spread(order: Order, processes: Sequence[LoadProcess]) -> list[tuple[LoadProcess, Order]]:
    """Each process's share of the clients; a process without any has none."""
    shares = []
    for number, process in enumerate(processes):
        clients = order.clients // len(processes) + (number < order.clients % len(processes))
        if clients:
            shares.append((process, msgspec.structs.replace(order, clients=clients)))
    return shares


def _order(subject: Subject, package: Package, addresses: Mapping[Contender, str]) -> Order:
    width, height = subject.size
    if subject.contender == "floor":
        at_once = IN_FLIGHT if subject.clients > 1 else 1
        paints_mask = package.task == "segmentation"
        return Order("floor", at_once, width, height, str(package.model), paints_mask=paints_mask)
    return Order(subject.contender, subject.clients, width, height, addresses[subject.contender], COMPONENT)
