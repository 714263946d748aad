"""What a model runs on, for commands that open packages: spelled and decided as for `edge-agent serve`."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, cast

from agent.settings import Settings, device_of, environment_name_of, flag_of, kind_of, read_settings

if TYPE_CHECKING:
    from agent.backends.base import BackendSettings, Stage

FLAGS = ("device", "fallback", "gpu_memory_limit", "precision", "engine_cache", "engine_workspace")


def add_setting_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Flags for these settings, with the sentences of the settings."""
    for setting in fields(Settings):
        if setting.name in names:
            sentence = f"{setting.metadata['sentence']} Allowed: {kind_of(setting).allowed}."
            environment = environment_name_of(setting.name)
            parser.add_argument(
                flag_of(setting.name),
                metavar=setting.name.upper().rpartition("_")[2],
                help=f"{sentence} Environment: {environment}.".replace("%", "%%"),
            )


def settings_given(arguments: argparse.Namespace, *names: str) -> Settings:
    """The settings of these flags and of the environment. Raises BadSetting or UnknownSetting."""
    return read_settings({name: getattr(arguments, name) for name in names}, os.environ, None)


def backend_settings(settings: Settings, component: str = "") -> BackendSettings:
    """How a model component may use the device."""
    from agent.backends.base import BackendSettings, LowestPrecision, WantedDevice

    device, allows_fallback = device_of(settings, component)
    return BackendSettings(
        settings.threads or len(os.sched_getaffinity(0)),
        cast(WantedDevice, device),  # checked when the setting was read
        allows_fallback,
        settings.gpu_memory_limit << 20,
        cast(LowestPrecision, settings.precision),
        str(settings.engine_cache),
        settings.engine_cache_size << 20,
        settings.engine_workspace << 20,
    )


def say_progress(text: str, stage: Stage = "loading") -> None:
    """What opening a model does where it takes long: beside the output, not in it."""
    print(text, file=sys.stderr, flush=True)
