"""Where the client examples are: shipped in the wheel, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path

import agent


def sample_client_folder() -> Path:
    """The folder of the sample client, `client_examples/detect`."""
    package = Path(agent.__file__).resolve().parent
    places = [folder / "client_examples" / "detect" for folder in (package, package.parent)]
    return next(place for place in places if (place / "detect.py").is_file())
