"""The command line: which command there is, where its code is, and what its end means.

    edge-agent COMMAND ...        (python -m agent COMMAND ... is the same)

Exit codes: 0 done, or asked to stop; 1 it could not be done; 2 a wrong setting or argument; 3 `replay --fail-on` found
such a change; 4 another agent serves the socket.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from agent import __version__
from agent.errors import Refusal

COMMANDS = {
    "serve": "serve the registered models over gRPC",
    "models": "register, list and remove model packages",
    "fit": "make a model package from good images",
    "package": "make a package and a component of a model from elsewhere",
    "inspect": "tell what a package or an ONNX file is",
    "verify": "check a package: files, model, self-test",
    "evaluate": "tell how good a model is, on labelled images",
    "replay": "inspect pictures again that the camera client kept, and tell what changed",
    "doctor": "tell what this device can run models on, and what to do about the rest",
    "engines": "build, list and remove the TensorRT engines of this device",
    "detect": "inspect images with a package, without a server",
    "tune": "set the threshold of a model on this device, from labelled images or by hand",
    "greengrass": "components, deployments and recipe checks for AWS IoT Greengrass",
    "demo": "the whole way in one command, on drawn parts or on your photos",
}
"""Each is the module of its name in `agent.commands`, imported when it is wanted: `serve` must be up in no time."""


WRONG_SETTING = 2
"""What argparse exits with, too."""


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser("edge-agent", description="Visual inspection at the edge.")
    parser.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    module: Any = None
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:] + ".")
        if given and given[0] == name:
            module = import_module(f"agent.commands.{name}")
            module.add_arguments(command)
    parsed = parser.parse_args(given)
    try:
        code: int = module.run(parsed)
        return code
    except Refusal as refusal:
        from agent.settings import BadSetting, UnknownSetting
        from agent.workbench.errors import SettingOutOfRange  # here: `serve` does without the workbench

        print(f"edge-agent {parsed.command}: {refusal}", file=sys.stderr)
        return WRONG_SETTING if isinstance(refusal, BadSetting | UnknownSetting | SettingOutOfRange) else 1
    except BrokenPipeError:  # whoever read our output has read enough
        sys.stdout = None  # else Python complains at the end that it cannot be flushed
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
