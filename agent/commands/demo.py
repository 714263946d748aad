"""`edge-agent demo`: the whole way in one command."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="your photographs instead of drawn parts: good ones in DIR or DIR/normal, those to inspect in DIR/test "
        "(good-*.png or test/good/*.png says what is true; without test/ the good ones are inspected)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("edge-agent-demo"), metavar="DIR", help="everything it makes (%(default)s)"
    )
    parser.add_argument(
        "--fixed-position", action="store_true", help="with --images: camera and part are always in the same place"
    )


def run(arguments: argparse.Namespace) -> int:
    from agent.commands.workbench import need, progress_bar

    need("tqdm")
    from tabulate import tabulate

    from agent.workbench.demo.report import summary
    from agent.workbench.demo.run import SHEET, run_demo

    options = ["--fixed-position"] if arguments.fixed_position else []
    with progress_bar("drawing parts", unit="picture") as bar:

        def progress(done: int, count: int) -> None:
            bar.total = count
            bar.update(done - bar.n)

        inspected = run_demo(arguments.images, arguments.output, options, progress)

    rows = [
        (
            one.picture.name,
            one.truth or "?",
            one.verdict,
            f"{one.score:.3f}",
            f"{one.threshold:.3f}",
            f"{one.area:.2%}",
            {True: "right", False: "WRONG", None: ""}[one.is_right],
        )
        for one in inspected
    ]
    print()
    print(
        tabulate(rows, headers=["picture", "truth", "verdict", "score", "threshold", "area", ""], disable_numparse=True)
    )
    print(f"\n{summary(inspected)}. Look at {arguments.output / SHEET}")
    return 0
