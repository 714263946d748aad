"""The settings of the agent: one frozen dataclass, a sentence per setting; only the wiring reads it.

Every setting has one name, spelled for its place: field `queue_length`, flag `--queue-length`, environment
`EDGE_AGENT_QUEUE_LENGTH`, configuration file and Greengrass configuration `QueueLength`. The first place that names a
setting wins, in that order. The Greengrass configuration is followed while the agent runs (`agent.greengrass`); what of
it takes effect at once is marked here: `live`.
"""

from __future__ import annotations

import grp
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from agent.errors import Refusal

DEFAULT_SOCKET = "unix:///tmp/aws.iot.lookoutvision.EdgeAgent.sock"
MAX_SOCKET_PATH = 107
"""Bytes, the kernel's limit (sun_path holds 108 with the closing NUL)."""
ENVIRONMENT = "EDGE_AGENT_"
AUTO = "auto"
"""What a configuration says that leaves the choice to the agent."""
DEVICES = (AUTO, "cpu", "cuda", "tensorrt", "onnxruntime-tensorrt")
"""What models may run on; `agent.backends.base` says what each is."""
_COMPONENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)


class BadSetting(Refusal):
    """A setting's value is not allowed: names key, value and what is."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key} is {_shown(value)}; it must be {allowed}.")


class UnknownSetting(Refusal):
    def __init__(self, key: str, source: str) -> None:
        super().__init__(
            f"{source} names the setting {key!r}, which does not exist; `edge-agent serve --help` lists them."
        )


def _shown(value: object) -> str:
    try:
        return repr(value)[:200]
    except RecursionError:
        return "too deeply nested to be shown"


_ABSENT = object()


@dataclass(frozen=True)
class _Kind:
    """What values a setting takes: how to read one, and how to say what is allowed."""

    read: Callable[[object], Any]
    allowed: str


def _whole(minimum: int, maximum: int) -> _Kind:
    def read(value: object) -> int:
        # Values may arrive as strings (environment, nucleus lite) or floats (Java nucleus).
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
        if number is None or number != int(number) or not minimum <= number <= maximum:
            raise ValueError
        return int(number)

    return _Kind(read, f"a whole number from {minimum} to {maximum}")


def _seconds(minimum: float, maximum: float) -> _Kind:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        if not minimum <= (number := float(value)) <= maximum:
            raise ValueError
        return number

    return _Kind(read, f"a number of seconds from {minimum:g} to {maximum:g}")


def _yes_or_no() -> _Kind:
    words = {"true": True, "false": False}

    def read(value: object) -> bool:
        return value if isinstance(value, bool) else words[str(value).lower()]

    return _Kind(read, "true or false")


def _one_of(*words: str) -> _Kind:
    def read(value: object) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return _Kind(read, " or ".join(words))


def _device_by_model(value: object) -> str:
    """`back=cuda, front=cpu` in one way of writing it."""
    if not isinstance(value, str):
        raise ValueError
    pairs = [pair.strip().partition("=") for pair in value.split(",")] if value.strip() else []
    if any(device not in DEVICES or not _COMPONENT.fullmatch(name) for name, _, device in pairs):
        raise ValueError
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise ValueError
    return ",".join(sorted(f"{name}={device}" for name, _, device in pairs))


def _address(value: object) -> str:
    match = re.fullmatch(r"unix:(?://)?(/[^/\x00][^\x00]*)", value) if isinstance(value, str) else None
    if match is None or len(os.fsencode(match[1])) > MAX_SOCKET_PATH or match[1].endswith("/"):
        raise ValueError
    return f"unix://{match[1]}"


def _mode(value: object) -> int:
    mode = int(value, 8) if isinstance(value, str) else None
    if mode is None or not 0o600 <= mode <= 0o777 or mode & 0o111:
        raise ValueError
    return mode


def _group(value: object) -> str:
    if value != "":
        grp.getgrnam(str(value))  # KeyError: no such group
    return str(value)


def _directory(default: Callable[[], Path]) -> Callable[[object], Path]:
    def read(value: object) -> Path:
        if value == AUTO:
            return default()
        # fsencode: what the file system cannot name raises ValueError too.
        if not isinstance(value, str | Path) or not str(value).strip() or b"\0" in os.fsencode(value):
            raise ValueError
        return Path(value).absolute()

    return read


def default_registry() -> Path:
    return _state_folder() / "registry"


def default_engine_cache() -> Path:
    return _state_folder() / "engines"


def _state_folder() -> Path:
    """Of a Greengrass component its work folder, which is the current one; else /var/lib/edge-agent for root, and for
    others below their state folder (XDG base directories)."""
    if "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT" in os.environ:
        return Path.cwd()
    if os.geteuid() == 0:
        return Path("/var/lib/edge-agent")
    # HOME may be missing for a component's user.
    home = Path(os.environ.get("HOME") or f"/tmp/edge-agent-{os.geteuid()}")
    return Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state") / "edge-agent"


def _setting(
    kind: _Kind, sentence: str, default: Any = MISSING, factory: Any = MISSING, shown: str = "", live: bool = False
) -> Any:
    metadata = {"kind": kind, "sentence": sentence, "shown": shown or str(default), "live": live}
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """What the agent can be told. `--help` and the README's table are made from here."""

    socket: str = _setting(
        _Kind(_address, f"unix:///path with an absolute path of at most {MAX_SOCKET_PATH} bytes"),
        "Where clients call.",
        DEFAULT_SOCKET,
    )
    socket_mode: int = _setting(
        _Kind(_mode, "an octal file mode such as 0660, without execute bits"),
        "Who may call: the mode of the socket.",
        0o660,
        shown="0660",
    )
    socket_group: str = _setting(
        _Kind(_group, "the name of a group on this device, or empty"),
        "Group of the socket; empty keeps the group of the agent's user.",
        "",
        shown="(empty)",
    )
    registry: Path = _setting(
        _Kind(_directory(default_registry), "the path of a directory, or auto"),
        "Directory with one record per model component. auto: `registry` in the work folder of a Greengrass component, "
        "else /var/lib/edge-agent/registry for root and ~/.local/state/edge-agent/registry for others.",
        factory=default_registry,
        shown=AUTO,
    )
    log_format: str = _setting(_one_of("text", "json"), "One line per event, as text or as a JSON object.", "text")
    log_level: str = _setting(
        _one_of("debug", "info", "warning", "error"),
        "The least severe events that are logged.",
        "info",
        live=True,
    )
    metrics_port: int = _setting(
        _whole(0, 65535),
        "Port of 127.0.0.1 at which GET /metrics answers with metrics for Prometheus; 0: none.",
        0,
        live=True,
    )
    threads: int = _setting(
        _whole(0, 256),
        "Threads of one inference; 0: as many as the agent may use processors. A change is for workers that start "
        "after it.",
        0,
        live=True,
    )
    device: str = _setting(
        _one_of(*DEVICES),
        "What models run on. auto: TensorRT or CUDA where they are installed, else the CPU. A change is for workers "
        "that start after it.",
        AUTO,
        live=True,
    )
    model_devices: str = _setting(
        _Kind(
            _device_by_model, f"pairs of component=device with commas between them, device being {' or '.join(DEVICES)}"
        ),
        "What single models run on in place of `device`, by component: front=cpu,back=cuda.",
        "",
        shown="(empty)",
        live=True,
    )
    fallback: str = _setting(
        _one_of(AUTO, "forbid", "allow"),
        "Whether a model may run on the next best device where its own cannot be used; else it is FAILED. auto: allow "
        "where the device is auto, forbid where one is named.",
        AUTO,
        live=True,
    )
    gpu_memory_limit: int = _setting(
        _whole(0, 1 << 20),
        "MiB of GPU memory that one model may take in ONNX Runtime; 0: what there is.",
        0,
        live=True,
    )
    precision: str = _setting(
        _one_of("fp16", "fp32"),
        "The lowest precision that a GPU may compute in. fp16: TensorRT's engines may use it, and fp32 may be TF32; a "
        "model that fails the self-test of its package so gives way to one in fp32. A change is for workers that start "
        "after it.",
        "fp16",
        live=True,
    )
    engine_cache: Path = _setting(
        _Kind(_directory(default_engine_cache), "the path of a directory, or auto"),
        "Directory of the TensorRT engines that were built on this device; only the agent's user gets into it. auto: "
        "`engines` beside the default registry.",
        factory=default_engine_cache,
        shown=AUTO,
    )
    engine_cache_size: int = _setting(
        _whole(64, 1 << 20),
        "MiB that these engines may take on disk; those that were not used for longest make room.",
        4096,
        live=True,
    )
    engine_workspace: int = _setting(
        _whole(16, 1 << 20),
        "MiB of GPU memory that one layer of an engine may take for intermediate results. Less makes other engines, "
        "which may be slower.",
        1024,
        live=True,
    )
    calls_in_flight: int = _setting(
        _whole(1, 16),
        "Calls a model works on at once: with 2, one is preprocessed while the other is inferred.",
        2,
    )
    queue_length: int = _setting(
        _whole(0, 48),
        "Calls that may wait for a model; one more is refused with RESOURCE_EXHAUSTED.",
        16,
        live=True,
    )
    message_memory: int = _setting(
        _whole(64, 1 << 20),
        "MiB that images in messages may take together while they are handled; more is refused with "
        "RESOURCE_EXHAUSTED. Images in shared memory take none.",
        512,
        live=True,
    )
    auto_start: bool = _setting(
        _yes_or_no(),
        "Start every model as soon as it is registered. Without it, models start when a client asks, and again after a "
        "restart of the agent until a client stops them. Turned on live, it starts those that do not run.",
        False,
        shown="false",
        live=True,
    )
    load_time_limit: float = _setting(
        _seconds(1, 86400),
        "Longest time a model may take from STARTING to RUNNING; then it is FAILED. Waiting while the TensorRT engine "
        "of another model is built does not count.",
        1800.0,
        shown="1800",
        live=True,
    )
    run_time_limit: float = _setting(
        _seconds(0.1, 3600),
        "Longest time one image may take; then the model's worker is replaced.",
        30.0,
        shown="30",
        live=True,
    )
    worker_growth: int = _setting(
        _whole(0, 1 << 20),
        "MiB that a model's worker may grow while it serves; then a new one takes over between two calls. 0: any.",
        512,
        live=True,
    )
    unload_first: bool = _setting(
        _yes_or_no(),
        "Unload a running version before its update is loaded, for devices without memory for both: calls wait "
        "meanwhile. Without it, an update that has no room beside the running version does not take over.",
        False,
        shown="false",
        live=True,
    )


def device_of(settings: Settings, component: str) -> tuple[str, bool]:
    """What a model component is to run on, one of DEVICES, and whether the next best may stand in for it."""
    own = dict(pair.split("=") for pair in settings.model_devices.split(",") if pair)
    device = own.get(component, settings.device)
    return device, settings.fallback == "allow" or (settings.fallback == AUTO and device == AUTO)


def flag_of(setting: str) -> str:
    return "--" + setting.replace("_", "-")


def environment_name_of(setting: str) -> str:
    return ENVIRONMENT + setting.upper()


def key_of(setting: str) -> str:
    """In the configuration file and the Greengrass configuration: `queue_length` is `QueueLength`."""
    return "".join(word.capitalize() for word in setting.split("_"))


def kind_of(setting: Field[Any]) -> _Kind:
    kind: _Kind = setting.metadata["kind"]
    return kind


def is_live(setting: Field[Any]) -> bool:
    """Whether a change takes effect without a restart."""
    live: bool = setting.metadata["live"]
    return live


def read_settings(flags: Mapping[str, str | None], environment: Mapping[str, str], file: Path | None) -> Settings:
    """The settings in force where no Greengrass configuration is followed; see `given_values`."""
    return Settings(**given_values(flags, environment, file))


def given_values(flags: Mapping[str, str | None], environment: Mapping[str, str], file: Path | None) -> dict[str, Any]:
    """What was given at the start, by field name: of each setting the first of flag (None where not given), environment
    and file.

    Raises:
        BadSetting, UnknownSetting: names key, value and what is allowed.
    """
    configured = _read_file(file) if file else {}
    known = {environment_name_of(setting.name) for setting in fields(Settings)}
    for name in environment:
        if name.startswith(ENVIRONMENT) and name not in known:
            raise UnknownSetting(name, "the environment")
    values = {}
    for setting in fields(Settings):
        named = (
            (flag_of(setting.name), flags.get(setting.name)),
            (environment_name_of(setting.name), environment.get(environment_name_of(setting.name))),
            (key_of(setting.name), configured.pop(key_of(setting.name), _ABSENT)),
        )
        for key, value in named:
            # A null in the file is a value, and a wrong one.
            if value is not _ABSENT and (value is not None or key == key_of(setting.name)):
                values[setting.name] = checked_value(setting, key, value)
                break
    if configured:
        raise UnknownSetting(min(configured), str(file))
    return values


def checked_value(setting: Field[Any], key: str, value: object) -> Any:
    """`value` as the setting takes it; raises BadSetting, which names `key`."""
    kind = kind_of(setting)
    try:
        return kind.read(value)
    except (ValueError, KeyError, OverflowError, RecursionError):
        raise BadSetting(key, value, kind.allowed) from None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        configured = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadSetting("--config", str(file), f"a readable JSON file ({error})") from None
    if not isinstance(configured, dict):
        raise BadSetting("--config", str(file), "a JSON object with a key per setting")
    return configured
