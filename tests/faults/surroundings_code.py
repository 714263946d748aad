"""Rows G5, G6 and G8: what the code must not do, what it stands on, and under which licences."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime
import pytest
from google.protobuf.internal import api_implementation
from onnx import external_data_helper
from packaging.requirements import Requirement
from packaging.version import Version

from tests.faults.row import Run, row
from tests.support.checkout import ROOT
from tests.support.packages import darkness_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUNTIME = "cpu"
"""The extra that every test environment has."""
PERMISSIVE = {
    "0BSD",
    "Apache 2.0",
    "Apache Software License",
    "Apache-2.0",
    "3-Clause BSD License",
    "BSD License",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "HPND",
    "MIT",
    "MIT License",
    "MIT-CMU",
    "PSF-2.0",
    "Python Software Foundation License",
    "Zlib",
}
"""Licences that ask for no more than to be named, as packages spell them."""

EXECUTING_MODULES = {"cloudpickle", "dill", "imp", "joblib", "marshal", "pickle", "shelve", "torch"}
"""Their loaders execute what they read."""
EXECUTING_CALLS = {
    *("__import__", "compile", "eval", "exec"),
    *("np.load", "numpy.load", "runpy.run_module", "runpy.run_path"),
    *(f"yaml.{kind}load{many}" for kind in ("", "full_", "unsafe_") for many in ("", "_all")),  # all but safe_load
    *("os.popen", "os.system", "pty.spawn", "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp"),
}
SENTENCES_TO_FIND = (
    "import pickle",
    "from yaml import load",
    "yaml.unsafe_load(text)",
    "from os import system",
    "eval(text)",
    "os.system(command)",
    "np.load(path, allow_pickle=True)",
    "subprocess.run(command, shell=True)",
    "subprocess.Popen(command, shell=wanted)",
)

FLOORS = {
    "grpcio": "1.66.2",
    "numpy": "1.26",
    "onnxruntime": "1.23.2",
    # Older ones overflow the heap on a JPEG; there is no 13 for Python 3.10.
    "pillow": "13" if sys.version_info >= (3, 11) else "12.3",
    "protobuf": "5.27.2",
}
"""Oldest release of each compiled package that may stand below the service."""


@row(
    "G5",
    "every package below the service has a licence that asks only to be named",
    unit="readings",
    full=1,
    short=1,
    uses_shared_agent=False,
)
def licences(run: Run) -> None:
    for _ in run.steps():
        found = {name: set(licences_of(name)) for name in packages_below_the_service()}
        others = {name: said for name, said in found.items() if not said or not said <= PERMISSIVE}
        assert not others, others
        run.figures["packages"] = str(len(found))


def packages_below_the_service() -> set[str]:
    """Names of all that an installation with a runtime brings along."""
    found = set[str]()
    wanted = service_requirements()
    while wanted:
        requirement = wanted.pop()
        if requirement.name not in found:
            found.add(requirement.name)
            below = map(Requirement, importlib.metadata.requires(requirement.name) or [])
            wanted += [each for each in below if applies(each, requirement.extras)]
    return found


def service_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"][RUNTIME]]
    return [requirement for requirement in map(Requirement, listed) if applies(requirement, set())]


def applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))


def licences_of(name: str) -> Iterator[str]:
    """As the installed package names them: the new field, else classifiers, else the old free text."""
    metadata = importlib.metadata.metadata(name)
    classifiers = [text for text in metadata.get_all("Classifier", []) if text.startswith("License ::")]
    if expression := metadata.get("License-Expression"):
        yield from re.split(r" AND | OR ", expression)
    elif classifiers:
        yield from (text.rpartition(" :: ")[2] for text in classifiers)
    elif text := metadata.get("License"):
        yield text


@row(
    "G6",
    "nothing in the package executes what it reads, and no shell is asked",
    unit="readings",
    full=1,
    short=1,
    uses_shared_agent=False,
)
def nothing_executes(run: Run) -> None:
    for sentence in SENTENCES_TO_FIND:
        assert list(executing(ast.parse(sentence))), f"not found, the negative control: {sentence}"
    for _ in run.steps():
        files = [path for folder in ("agent", "client_examples") for path in (ROOT / folder).rglob("*.py")]
        found = [
            f"{path.relative_to(ROOT)}: {what}" for path in files for what in executing(ast.parse(path.read_text()))
        ]
        assert not found, found
        run.figures["files"] = str(len(files))


def executing(tree: ast.AST) -> Iterator[str]:
    """What in a source could execute what is read, or hands text to a shell."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call):
            names = [ast.unparse(node.func)]
            yield from (f"line {node.lineno}: a shell" for keyword in node.keywords if is_shell(keyword))
        else:
            continue
        for name in names:
            if name in EXECUTING_CALLS or name.partition(".")[0] in EXECUTING_MODULES:
                yield f"line {node.lineno}: {name}"


def is_shell(keyword: ast.keyword) -> bool:
    return keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)


@row(
    "G8",
    "the compiled packages below the service are no older than the floors, which are declared; and as we need them",
    unit="readings",
    full=1,
    short=1,
    uses_shared_agent=False,
)
def floors(run: Run) -> None:
    for _ in run.steps():
        declared = {requirement.name.lower(): requirement.specifier for requirement in service_requirements()}
        for name, floor in FLOORS.items():
            lower = [Version(each.version) for each in declared[name] if each.operator == ">="]
            assert lower == [Version(floor)], f"{name} is declared {declared[name]}"
            installed = importlib.metadata.version(name)
            assert Version(installed) >= Version(floor), f"{name} is {installed}"
            run.figures[name] = installed
        # The parser in C; the one in Python would take seconds for an image.
        assert api_implementation.Type() == "upb"
        check_path_validation(run.folder)


def check_path_validation(folder: Path) -> None:
    """ONNX Runtime reads a weight beside its model, and refuses one that lies elsewhere."""
    inside = folder / "inside"
    inside.mkdir()
    model = darkness_model()
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "white")
    for place in ("weight", "../weight"):
        (inside / place).write_bytes(weight.raw_data)
    weight.data_location = onnx.TensorProto.EXTERNAL
    for place in ("weight", "../weight"):
        external_data_helper.set_external_data(weight, place)
        (inside / "model.onnx").write_bytes(model.SerializeToString())
        refused = (
            contextlib.nullcontext() if place == "weight" else pytest.raises(Exception, match=r"(?i)external.data")
        )
        with refused:
            onnxruntime.InferenceSession(inside / "model.onnx", providers=["CPUExecutionProvider"])
