"""Rows E1 and E2: manifests that are wrong, and paths that lead elsewhere."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from agent.errors import BadManifest
from agent.packages.manifest import MAX_BYTES, write_manifest
from agent.packages.manifest_reader import read_manifest
from tests.faults.packages_mutants import TEXTS, Mutator, good_manifests
from tests.faults.packages_support import Canary, Suspect, check_refusal, put, suspect
from tests.faults.row import Run, row
from tests.support.packages import make_package

CHUNK = 200
"""Mutants between two looks at the clock."""
CHUNKS_BETWEEN_FILES = 500
LONGEST = 2.0
"""Seconds of processor time that a manifest of a mebibyte may take, on a slow machine too."""
GIBIBYTE = 1 << 30

Spoil = Callable[[Path], None]
"""Makes the manifest at a path a bad one."""


def _write(content: bytes) -> Spoil:
    return lambda manifest: put_file(manifest, content)


def put_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _replace(old: bytes, new: bytes) -> Spoil:
    def spoil(manifest: Path) -> None:
        content = manifest.read_bytes()
        assert old in content, old
        manifest.write_bytes(content.replace(old, new, 1))

    return spoil


def _instead(make: Callable[[Path], object]) -> Spoil:
    def spoil(manifest: Path) -> None:
        manifest.unlink()
        make(manifest)

    return spoil


def _link_to_copy(manifest: Path) -> None:
    copy = manifest.with_name("copy.json")
    manifest.rename(copy)
    manifest.symlink_to(copy.name)


FILES: dict[str, tuple[Spoil, str]] = {
    "missing": (Path.unlink, "there is no such file"),
    "empty": (_write(b""), "no JSON at line 1, column 1"),
    "1 GiB of nothing": (lambda manifest: os.truncate(manifest, GIBIBYTE), f"at most {MAX_BYTES} are read"),
    "not UTF-8": (_replace(b'"tiny"', b'"tin\xff"'), "is not UTF-8"),
    "UTF-16": (lambda manifest: put_file(manifest, manifest.read_text().encode("utf-16")), "is not UTF-8"),
    "byte order mark": (lambda manifest: put_file(manifest, b"\xef\xbb\xbf" + manifest.read_bytes()), "BOM"),
    "NaN": (_replace(b'"threshold": 0.5', b'"threshold": NaN'), "numbers must be finite"),
    "infinity": (_replace(b'"threshold": 0.5', b'"threshold": 1e999'), "numbers must be finite"),
    "key twice": (_replace(b'"width": 96', b'"width": 96, "width": 96'), "the key stands there twice"),
    "deep nesting": (_write(b'{"a":' * 200_000), "it is nested too deeply"),
    "huge number": (_replace(b'"width": 96', b'"width": ' + b"9" * 4000), "expected 'int' <= 4096"),
    "endless number": (_replace(b'"width": 96', b'"width": ' + b"9" * 900_000), "too many digits"),
    "wrong type": (_replace(b'"width": 96', b'"width": "96"'), "expected 'int', got 'str'"),
    "list": (_write(b"[]"), "expected 'object', got 'array'"),
    "unknown key": (_replace(b'"width": 96', b'"width": 96, "widht": 96'), "unknown field 'widht'"),
    "unknown version": (_replace(b'"format_version": 1', b'"format_version": 2'), "reads format version 1"),
    "folder": (_instead(Path.mkdir), "it is no plain file"),
    "FIFO": (_instead(os.mkfifo), "it is no plain file"),
    "link": (_link_to_copy, "links are not followed"),
    "link to /dev/zero": (_instead(lambda manifest: manifest.symlink_to("/dev/zero")), "links are not followed"),
}
"""The manifest, and what the model that FAILED says of it."""


@row(
    "E1",
    "manifests that are broken in any way: read, or refused in one short line; through the agent FAILED, others served",
    unit="manifests",
    full=1_000_000,
    short=1000,
)
def bad_manifests(run: Run) -> None:
    for content in good_manifests():
        read_manifest(content)
    mutator, slowest = Mutator(run.random), 0.0
    with suspect(run) as model:
        for number in run.steps(each=CHUNK):
            if number % (CHUNK * CHUNKS_BETWEEN_FILES) == 0:
                _try_files(run, model)
            slowest = max(slowest, *(_try_mutant(run, mutator.mutant()) for _ in range(CHUNK)))
    run.figures["slowest, processor time"] = f"{slowest * 1000:.0f} ms"
    assert slowest < LONGEST
    assert run.outcomes["read"] and run.outcomes["refused"]


def _try_files(run: Run, model: Suspect) -> None:
    for spoil, expected in FILES.values():
        put(run.folder / "good", model.folder)
        spoil(model.folder / "manifest.json")
        said = model.is_refused()
        assert expected in said, said


def _try_mutant(run: Run, content: bytes) -> float:
    """Seconds of processor time it took to read, or to refuse."""
    began = time.thread_time()
    try:
        manifest = read_manifest(content)
    except BadManifest as refusal:
        took = time.thread_time() - began
        assert str(refusal).startswith("manifest.json")
        check_refusal(refusal)
        run.saw("refused")
        return took
    took = time.thread_time() - began
    assert read_manifest(write_manifest(manifest)) == manifest
    run.saw("read")
    return took


# --- paths

PARTS = (
    *("a", "b", "..", ".", "", "~", "A", "~root", "C:", "http:", "file:", "\\", "..\\", "a\\b", " ", "...", "-", "*"),
    *("\0", "\n", "\r", "\x7f", "\u202e", "\uff0e\uff0e", "\u2215", "%2e%2e", "CON", "a" * 100),
)
"""Of paths: between them come slashes."""
OUTSIDE = "outside.secret"
PATHS_A_STEP = 100


def _listed_as(path: str) -> Spoil:
    """The model's file under another name, content and hash being right."""

    def spoil(manifest: Path) -> None:
        manifest.write_bytes(_with_path(manifest.read_bytes(), path))

    return spoil


def _linked(manifest: Path) -> None:
    """The model is a link to a file outside that has the listed content."""
    model = manifest.with_name("model.onnx")
    outside = manifest.parent.parent / OUTSIDE
    outside.write_bytes(model.read_bytes())
    model.unlink()
    model.symlink_to(outside)


def _linked_folder(manifest: Path) -> None:
    """The folder of the self-test image is a link to one outside."""
    folder = manifest.parent / "self-test"
    outside = manifest.parent.parent / "outside"
    if not outside.exists():
        folder.rename(outside)
    else:
        (folder / "good.rgb").unlink()
        folder.rmdir()
    folder.symlink_to(outside)


NO_PATH = "paths are relative, inside the package"
LEADING_OUT: dict[str, tuple[Spoil, str]] = {
    "absolute": (_listed_as("/etc/hostname"), NO_PATH),
    "up": (_listed_as(f"../{OUTSIDE}"), NO_PATH),
    "down and up": (_listed_as(f"a/../../{OUTSIDE}"), NO_PATH),
    "NUL": (_listed_as("model.onnx\0"), NO_PATH),
    "URL": (_listed_as("https://host/model.onnx"), NO_PATH),
    "file URL": (_listed_as("file:///etc/hostname"), NO_PATH),
    "backslash": (_listed_as(f"..\\{OUTSIDE}"), NO_PATH),
    "drive": (_listed_as("C:/model.onnx"), NO_PATH),
    "the folder itself": (_listed_as("."), NO_PATH),
    "other case": (_listed_as("MODEL.ONNX"), "there is no such file"),
    "case trick": (_listed_as("Self-Test/GOOD.rgb"), "listed twice"),
    "home": (_listed_as("~/model.onnx"), "there is no such file"),
    "link out": (_linked, "links are not followed"),
    "linked folder": (_linked_folder, "links are not followed"),
}


@row(
    "E2",
    "paths that lead out of the package, or may be read in two ways: refused, and nothing outside is opened",
    unit="paths",
    full=100_000,
    short=400,
)
def paths(run: Run) -> None:
    content = (make_package(run.folder / "listing") / "manifest.json").read_bytes()
    (run.folder / OUTSIDE).write_bytes(b"a secret")
    with suspect(run) as model:
        for number in run.steps(each=PATHS_A_STEP):
            if number % (PATHS_A_STEP * CHUNKS_BETWEEN_FILES) == 0:
                _try_leading_out(run, model)
            for _ in range(PATHS_A_STEP):
                _try_path(run, content, run.folder / "listing")
    assert run.outcomes["inside"] and run.outcomes["refused"]


def _try_leading_out(run: Run, model: Suspect) -> None:
    for spoil, expected in LEADING_OUT.values():
        put(run.folder / "good", model.folder)
        spoil(model.folder / "manifest.json")
        canary = Canary(run.folder / OUTSIDE)
        said = model.is_refused()
        assert expected in said, said
        assert not canary.was_touched(), said
        canary.close()


def _try_path(run: Run, content: bytes, package: Path) -> None:
    chance = run.random
    parts = [chance.choice(PARTS) for _ in range(chance.randrange(1, 5))]
    path = "/".join(parts) if chance.random() < 0.8 else chance.choice(TEXTS)
    try:
        read_manifest(_with_path(content, path))
    except BadManifest as refusal:
        check_refusal(refusal)
        run.saw("refused")
        return
    assert (package / path).resolve().is_relative_to(package) and "\0" not in path and "\\" not in path, repr(path)
    assert (package / path).resolve().relative_to(package).as_posix() == path, repr(path)
    run.saw("inside")


def _with_path(content: bytes, path: str) -> bytes:
    """A manifest that lists its model's file under another name."""
    raw = json.loads(content)
    raw["files"][0]["path"] = path
    return json.dumps(raw).encode()
