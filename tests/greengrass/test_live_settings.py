"""The Greengrass configuration: followed where it is right, a line in the log where it is not, never the end."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.greengrass.agent_recipe import agent_recipe
from agent.greengrass.followed_settings import FollowedSettings
from agent.settings import Settings, is_live, key_of, kind_of
from tests.support.nucleus.configuration import as_java_gives_it, as_lite_gives_it
from tests.support.wrong_settings import WRONG, WRONG_TYPES

NAMES = [setting.name for setting in fields(Settings)]
KIND = {setting.name: kind_of(setting) for setting in fields(Settings)}
RIGHT: dict[str, Any] = {
    "socket": "unix:///run/other.sock",
    "socket_mode": "0600",
    "socket_group": "root",
    "registry": "/srv/models",
    "log_format": "json",
    "log_level": "debug",
    "metrics_port": 9464,
    "threads": 3,
    "device": "tensorrt",
    "model_devices": "back=cuda,front=cpu",
    "fallback": "allow",
    "gpu_memory_limit": 2048,
    "precision": "fp32",
    "engine_cache": "/srv/engines",
    "engine_cache_size": 512,
    "engine_workspace": 256,
    "calls_in_flight": 4,
    "queue_length": 5,
    "message_memory": 64,
    "auto_start": True,
    "load_time_limit": 60,
    "run_time_limit": 2,
    "worker_growth": 0,
    "unload_first": True,
}
"""Of each setting a value that is not its default, as JSON has it."""
LIVE = {
    "log_level",
    "metrics_port",
    "threads",
    "device",
    "model_devices",
    "fallback",
    "gpu_memory_limit",
    "precision",
    "engine_cache_size",
    "engine_workspace",
    "queue_length",
    "message_memory",
    "auto_start",
    "load_time_limit",
    "run_time_limit",
    "worker_growth",
    "unload_first",
}


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def read(name: str) -> Any:
    """RIGHT's value as the setting holds it."""
    return KIND[name].read(RIGHT[name])


def wrong_values() -> list[tuple[str, object]]:
    texts = [(name, value) for name, values in WRONG.items() for value in values]
    others = [
        (name, value)
        for name in NAMES
        for value in (*WRONG_TYPES, None)
        if not (name in ("auto_start", "unload_first") and isinstance(value, bool))
    ]
    return texts + others


@pytest.mark.parametrize(("name", "value"), wrong_values())
def test_a_wrong_value_is_one_line_and_the_default_stays(
    name: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    followed = FollowedSettings({})
    for _ in range(3):  # reading it again is no news
        followed.follow({key_of(name): value})
    assert followed.in_force == Settings()
    (line,) = caplog.messages
    assert f"{key_of(name)} is {repr(value)[:200]}; it must be {KIND[name].allowed}." in line
    assert line.endswith(" stays in force.")


@pytest.mark.parametrize("name", NAMES)
def test_a_value_too_deeply_nested_to_be_shown_is_a_wrong_one(name: str, caplog: pytest.LogCaptureFixture) -> None:
    value: list[object] = []
    for _ in range(200_000):
        value = [value]
    followed = FollowedSettings({})
    followed.follow({key_of(name): value})
    assert followed.in_force == Settings()
    (line,) = caplog.messages
    assert f"{key_of(name)} is too deeply nested to be shown; it must be {KIND[name].allowed}." in line


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_value_leaves_the_last_good_one_and_a_missing_one_the_default(name: str) -> None:
    followed = FollowedSettings({})
    followed.follow({key_of(name): RIGHT[name]})
    assert getattr(followed.in_force, name) == read(name) != getattr(Settings(), name)
    followed.follow({key_of(name): {"nested": None}})
    assert getattr(followed.in_force, name) == read(name)
    followed.follow({})
    assert followed.in_force == Settings()


def test_a_wrong_value_keeps_no_other_from_its_effect(caplog: pytest.LogCaptureFixture) -> None:
    followed = FollowedSettings({})
    followed.follow({"QueueLength": "many", "Threads": 2, "RunTimeLimit": None})
    assert followed.in_force == Settings(threads=2)
    assert len(caplog.messages) == 3


@pytest.mark.parametrize("as_given", [as_java_gives_it, as_lite_gives_it], ids=["floats", "strings"])
def test_values_are_read_as_either_nucleus_gives_them(as_given: Any) -> None:
    followed = FollowedSettings({})
    followed.follow(as_given({key_of(name): value for name, value in RIGHT.items()}))
    assert followed.in_force == Settings(**{name: read(name) for name in NAMES})


@pytest.mark.parametrize("name", NAMES)
def test_what_was_given_at_the_start_comes_first_and_the_log_says_so(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = getattr(Settings(), name)
    followed = FollowedSettings({name: given})
    for _ in range(2):
        followed.follow({key_of(name): RIGHT[name]})
    assert getattr(followed.in_force, name) == given
    (line,) = caplog.messages
    assert f"{key_of(name)} has no effect: a flag, the environment or the file sets it" in line


def test_the_recipes_own_defaults_are_taken_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    followed = FollowedSettings({})
    followed.follow(agent_recipe("1.3.0")["ComponentConfiguration"]["DefaultConfiguration"])
    assert followed.in_force == Settings()
    assert caplog.messages == []


def test_unknown_keys_are_one_line_and_the_policies_none(caplog: pytest.LogCaptureFixture) -> None:
    followed = FollowedSettings({})
    configuration = {"queueLength": 3, "Thread": 2, "accessControl": {"aws.greengrass.ipc.pubsub": {}}}
    followed.follow(configuration)
    followed.follow(configuration)
    (line,) = caplog.messages
    assert "no such settings, they have no effect: 'Thread', 'queueLength'" in line
    followed.follow({f"Key{number:02}": number for number in range(15)})
    assert caplog.messages[-1].endswith("'Key09' and 5 more")


@given(
    st.dictionaries(
        st.sampled_from([key_of(name) for name in NAMES]) | st.text(max_size=20),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_no_configuration_does_harm(configuration: dict[str, object]) -> None:
    followed = FollowedSettings({})
    followed.follow(configuration)
    followed.settle()
    followed.follow(configuration)
    assert isinstance(followed.in_force, Settings)


# --- while the agent runs


def test_what_changes_live_is_what_can() -> None:
    assert {setting.name for setting in fields(Settings) if is_live(setting)} == LIVE


@pytest.mark.parametrize("name", sorted(LIVE))
def test_a_live_setting_changes_at_once_and_is_told(name: str, caplog: pytest.LogCaptureFixture) -> None:
    followed, told = FollowedSettings({}), []
    assert followed.settle() == Settings()
    followed.on_change(told.append)
    followed.follow({key_of(name): RIGHT[name]})
    followed.follow({key_of(name): RIGHT[name]})
    assert told == [Settings(), Settings(**{name: read(name)})]
    (line,) = caplog.messages
    assert line.startswith(f"{key_of(name)} {str(RIGHT[name]).lower()}, was ")


@pytest.mark.parametrize("name", sorted(set(NAMES) - LIVE))
def test_another_setting_waits_for_the_restart_and_the_log_says_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    followed, told = FollowedSettings({}), []
    followed.settle()
    followed.on_change(told.append)
    followed.follow({key_of(name): RIGHT[name], "QueueLength": 5})
    followed.follow({key_of(name): RIGHT[name], "QueueLength": 6})
    assert followed.in_force == Settings(queue_length=6)
    assert [settings.queue_length for settings in told] == [Settings().queue_length, 5, 6]
    waiting = [line for line in caplog.messages if "takes effect when the component restarts" in line]
    assert waiting == [
        f"Greengrass configuration: {key_of(name)} {RIGHT[name]} takes effect when the component restarts"
    ]


def test_what_was_in_force_at_the_start_needs_no_restart(caplog: pytest.LogCaptureFixture) -> None:
    followed = FollowedSettings({})
    followed.follow({"LogFormat": "json"})
    assert followed.settle().log_format == "json"
    caplog.clear()
    followed.follow({"LogFormat": "json", "Threads": 1})
    assert caplog.messages == ["Threads 1, was 0"]


def test_a_place_that_cannot_be_used_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    followed = FollowedSettings({})
    followed.follow({"Socket": "unix:///missing/s", "Registry": "/srv/models"})
    followed.settle()
    assert followed.leave_out("socket", "socket_mode")
    assert followed.in_force == Settings(registry=followed.in_force.registry)
    assert not followed.leave_out("socket", "socket_mode"), "it has been left out already"
    caplog.clear()
    followed.follow({"Socket": "unix:///missing/s", "Registry": "/srv/models"})
    assert caplog.messages == []


def test_a_place_that_was_given_at_the_start_is_nobodys_to_leave_out() -> None:
    followed = FollowedSettings({"socket": "unix:///missing/s"})
    followed.follow({"Socket": "unix:///tmp/s"})
    assert not followed.leave_out("socket")
    assert followed.in_force.socket == "unix:///missing/s"
