#!/usr/bin/env python3
"""The install step of a component: a virtual environment in the component's work folder.

    python3 -u install.py [--runtime auto|cpu|gpu] [--reader opencv|gstreamer] [--python PATH]

Runs in the work folder, at every launch of the nucleus: what is installed already is left alone, which takes
milliseconds. A new version is installed beside the old one and put in its place when it is whole, so that a power cut
leaves the one or the other. Needs nothing but Python; says what it decides and why.

This file runs before anything is installed, and on Pythons that are too old for the agent: it must be readable to
Python 3.6, and tell them what is missing.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OLDEST = (3, 10)
NEWEST = (3, 13)
ENVIRONMENT = "venv"
STAMP = "installed"
"""File in the environment: what it was made from."""
RUNTIMES = ("auto", "cpu", "gpu")
READERS = ("opencv", "gstreamer")
SYSTEM_PYTHON = "/usr/bin/python3"
"""The one that the distribution's packages are for, GStreamer's bindings among them."""


class CannotInstall(Exception):
    """Why, and what to do."""


def main():
    arguments = parse_arguments()
    try:
        jetson, gstreamer = is_jetson(), arguments.reader == "gstreamer"
        requirements = choose_requirements(arguments.runtime, arguments.reader, jetson)
        python = find_python(arguments.python, SYSTEM_PYTHON if gstreamer else sys.executable)
        # TensorRT's Python packages on a Jetson, and GStreamer's, are the system's.
        install(python, requirements, jetson or gstreamer)
    except CannotInstall as refusal:
        say(str(refusal))
        return 1
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description="Install this component into ./venv.")
    parser.add_argument("--runtime", default="auto", help="auto, cpu or gpu: what runs the models")
    parser.add_argument("--reader", help="opencv or gstreamer: what a camera client reads frames with")
    parser.add_argument("--python", default="auto", help="the Python to use; auto: one that fits")
    return parser.parse_args()


def find_python(wanted, best):
    """The Python to make the environment with: the one asked for, else the best one, else the newest on the path."""
    if wanted not in ("", "auto"):
        version = version_of(wanted)
        if version is None or not OLDEST <= version <= NEWEST:
            raise CannotInstall(f"{wanted} is no Python {spelled(OLDEST)} to {spelled(NEWEST)}; correct PythonPath")
        say(f"Python {spelled(version)}, as configured: {wanted}")
        return wanted
    names = [best] + [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    for name in names:
        version = version_of(name)
        if version is not None and OLDEST <= version <= NEWEST:
            say(f"Python {spelled(version)}: {name}")
            return name
    raise CannotInstall(
        f"python3 is {platform.python_version()}, and no Python {spelled(OLDEST)} to {spelled(NEWEST)} is there: "
        "install one (apt-get install python3.10 python3.10-venv) or name one in PythonPath"
    )


def version_of(python):
    """(major, minor), None where it does not run."""
    try:
        printed = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
        ).stdout
        major, minor = printed.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def spelled(version):
    return ".".join(map(str, version))


def is_jetson(root=Path("/")):
    """Whether this is an NVIDIA Jetson, whose TensorRT comes with the system and not from an index."""
    if (root / "etc/nv_tegra_release").exists():
        return True
    try:
        return b"Jetson" in (root / "proc/device-tree/model").read_bytes()
    except OSError:
        return False


def choose_requirements(runtime, reader, jetson, root=Path("/")):
    """The file that lists what to install: one per runtime for the agent, one per reader or just one for a client."""
    if (HERE / "requirements.txt").is_file():
        return HERE / "requirements.txt"
    if reader is not None:
        return requirements_of(choose_reader(reader))
    runtime = choose_runtime(runtime, jetson, root)
    if not packed(runtime):
        there = ", ".join(sorted(file.name for file in HERE.glob("requirements-*.txt"))) or "none"
        raise CannotInstall(
            f"this component brings no requirements-{runtime}.txt (it has: {there}); build it with "
            f"--runtime {runtime}, or configure another Runtime"
        )
    return requirements_of(runtime)


def choose_runtime(wanted, jetson, root=Path("/")):
    """`cpu` or `gpu`: which package of ONNX Runtime."""
    if wanted not in RUNTIMES:
        raise CannotInstall(f"Runtime is {wanted!r}; it must be one of {', '.join(RUNTIMES)}")
    if wanted != "auto":
        say(f"runtime {wanted}, as configured")
        return wanted
    if jetson:
        say("runtime cpu beside the TensorRT of JetPack: this is a Jetson")
        return "cpu"
    if not (root / "proc/driver/nvidia/version").exists():
        say("runtime cpu: there is no NVIDIA driver")
        return "cpu"
    if not packed("gpu"):
        say("runtime cpu: the NVIDIA driver is loaded, but this component was built without the gpu runtime")
        return "cpu"
    say("runtime gpu: the NVIDIA driver is loaded")
    return "gpu"


def choose_reader(wanted):
    if wanted not in READERS:
        raise CannotInstall(f"source.reader is {wanted!r}; it must be one of {', '.join(READERS)}")
    say(f"reader {wanted}, as configured")
    return wanted


def packed(runtime):
    """Whether this component brings what `runtime` needs."""
    return requirements_of(runtime).is_file()


def requirements_of(choice):
    return HERE / f"requirements-{choice}.txt"


def install(python, requirements, with_system):
    """Makes ./venv what the artifacts say, unless it is that already."""
    wheels = sorted(HERE.glob("*.whl"))  # the component's own, if it is a package
    made_from = fingerprint(python, with_system, requirements, *wheels)
    fresh = Path(f"{ENVIRONMENT}.new")
    if not Path(ENVIRONMENT).exists() and is_whole(fresh, made_from):
        put_in_place(fresh)  # the power went between the two renames
    if is_whole(Path(ENVIRONMENT), made_from):
        say("already installed: nothing to do")
        return
    shutil.rmtree(str(fresh), ignore_errors=True)
    make_environment(python, with_system, fresh)
    install_packages(fresh, requirements, wheels)
    (fresh / STAMP).write_text(made_from)
    put_in_place(fresh)
    say(f"installed in {Path(ENVIRONMENT).resolve()}")


def fingerprint(python, with_system, *files):
    """Changes with whatever the environment is made from."""
    digest = hashlib.sha256(f"{shutil.which(python)}:{version_of(python)}:{with_system}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def is_whole(environment, made_from):
    """Whether an environment is what it should be, and its Python starts: an update may have taken that away."""
    stamp = environment / STAMP
    if not stamp.is_file() or stamp.read_text() != made_from:
        return False
    return version_of(str(environment / "bin" / "python")) is not None


def make_environment(python, with_system, folder):
    options = ["--system-site-packages"] if with_system else []
    say(f"making a virtual environment{' that sees the system packages' if with_system else ''}")
    run(
        [python, "-m", "venv", *options, str(folder)],
        "no virtual environment can be made: install the package python3-venv (or python3.N-venv for its version)",
    )


def install_packages(environment, requirements, own):
    """First what the component needs, each file checked against its hash, then its own wheel, if it has one."""
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    pip += ["--progress-bar", "off"]
    wheels = HERE / "wheels"
    if wheels.is_dir():
        say("installing from the wheels in this component, without a network")
        pip += ["--no-index", "--find-links", str(wheels)]
    else:
        say("installing from the package index")
    run(
        [*pip, "--only-binary", ":all:", "--require-hashes", "--requirement", str(requirements)],
        "packages could not be installed (see above): is the package index reachable from this device? "
        "Build the component with --bundle-wheels for devices without internet",
    )
    for wheel in own:
        run([*pip, "--no-deps", "--no-index", str(wheel)], f"{wheel.name} could not be installed (see above)")


def run(command, if_it_fails):
    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    except OSError as error:
        raise CannotInstall(f"{command[0]} does not run ({error.strerror}): {if_it_fails}")
    if code != 0:
        raise CannotInstall(if_it_fails)


def put_in_place(fresh):
    """Two renames; `install` finishes what a power cut between them left."""
    old = Path(f"{ENVIRONMENT}.old")
    shutil.rmtree(str(old), ignore_errors=True)
    if Path(ENVIRONMENT).exists():
        os.replace(ENVIRONMENT, str(old))
    os.replace(str(fresh), ENVIRONMENT)
    shutil.rmtree(str(old), ignore_errors=True)


def say(text):
    print(f"install: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
