"""`edge-agent tune`: the threshold of one device, from labelled images or by hand, and how it came to be.

What needs no images (`by_hand`) needs no workbench either: it works on a device.
"""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from pathlib import Path

from agent.commands.options import add_agent, add_registry, add_root
from agent.errors import Refusal

DESCRIPTION = """\
Sets the threshold of a component on this device, in place of its package's. The package stays as it is; a running
agent follows within a second, without a restart. It holds for the version it was measured for: an update brings its
own threshold. Every change leaves a line in a log.
"""
EXAMPLES = """\
examples:
  edge-agent tune plate photos/ --max-false-reject 0.5%    at most 5 of 1000 good parts are rejected
  edge-agent tune plate photos/ --cost-ratio 20:1 --agent  a miss costs as much as 20 false rejects
  edge-agent tune plate --threshold 0.62                   set it by hand
  edge-agent tune plate --reset                            back to the package's threshold
  edge-agent tune plate --history                          who changed what, when and why
"""


class ImagesNeeded(Refusal):
    def __init__(self) -> None:
        super().__init__(
            "A threshold is found on labelled images: name them as SOURCE (a folder with normal/ and anomaly/, or a "
            "manifest), or give the threshold itself with --threshold."
        )


class ImagesNotNeeded(Refusal):
    def __init__(self, option: str, source: str) -> None:
        super().__init__(f"{option} looks at no images; leave {source!r} out.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "model",
        metavar="COMPONENT",
        help="a registered component; or a package (folder or ZIP), to see what would come out: nothing is set then",
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="labelled images: a folder with normal/ and anomaly/, MVTec's layout, or a manifest (JSON Lines)",
    )
    _add_targets(parser)
    add_agent(parser, "let the running agent inspect the images, on the device's own runtime")
    parser.add_argument("--dry-run", action="store_true", help="print what would be set, change nothing")
    add_root(parser)
    add_registry(parser)


def _add_targets(parser: argparse.ArgumentParser) -> None:
    targets = parser.add_argument_group("what is asked for: one of these").add_mutually_exclusive_group(required=True)
    targets.add_argument(
        "--max-false-reject",
        type=_part,
        metavar="PERCENT",
        help="reject at most this part of the good images, and miss as little as can be, as in 0.5%%",
    )
    targets.add_argument(
        "--max-miss",
        type=_part,
        metavar="PERCENT",
        help="miss at most this part of the anomalous images, and reject as little as can be, as in 1%%",
    )
    targets.add_argument("--best-f1", action="store_true", help="the highest F1")
    targets.add_argument(
        "--cost-ratio",
        type=_ratio,
        metavar="MISS:REJECT",
        help="the lowest cost, where a miss costs so much and a false reject so much, as in 20:1",
    )
    targets.add_argument(
        "--threshold", type=_threshold, metavar="T", help="this one, 0 to 1; with SOURCE, its figures are shown too"
    )
    targets.add_argument("--reset", action="store_true", help="the package's again")
    targets.add_argument("--history", action="store_true", help="print the changes so far")


def run(arguments: argparse.Namespace) -> int:
    """Finds, prints and sets; 0 when done.

    Raises:
        Refusal: no such component, no images, a registry that cannot be written: the sentence says what to do.
    """
    from agent.commands.tune import by_hand
    from agent.settings import default_registry

    registry = Path(arguments.registry or default_registry()).absolute()
    without_images = {"--history": arguments.history, "--reset": arguments.reset}
    option = next((name for name, is_asked in without_images.items() if is_asked), None)
    if option and arguments.source:
        raise ImagesNotNeeded(option, arguments.source)
    if option == "--history":
        return by_hand.show_history(arguments.model, registry)
    if option == "--reset":
        return by_hand.reset(arguments.model, registry, dry_run=arguments.dry_run)
    if arguments.source:
        from agent.commands.tune import by_images

        return by_images.tune(arguments, registry)
    if arguments.threshold is None or arguments.agent or arguments.root:
        raise ImagesNeeded
    return by_hand.set_by_hand(arguments.model, arguments.threshold, registry, dry_run=arguments.dry_run)


def _part(text: str) -> Fraction:
    """ "0.5%" as 1/200. The sign is asked for: 0.5 alone may mean either."""
    number, sign = text[:-1], text[-1:]
    try:
        part = Fraction(number) / 100
    except (ValueError, ZeroDivisionError):
        part = Fraction(-1)
    if sign != "%" or not 0 <= part <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage from 0% to 100%, such as 0.5%")
    return part


def _ratio(text: str) -> tuple[Fraction, Fraction]:
    miss, _, reject = text.partition(":")
    try:
        costs = Fraction(miss), Fraction(reject)
    except (ValueError, ZeroDivisionError):
        costs = Fraction(0), Fraction(0)
    if min(costs) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no ratio of two costs above 0, such as 20:1")
    return costs


def _threshold(text: str) -> float:
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1 or threshold != round(threshold, 4):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1 with at most 4 decimals, such as 0.62")
    return threshold
