"""Settings: every wrong value is refused in one sentence that names key, value and what is allowed."""

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.settings import (
    BadSetting,
    Settings,
    UnknownSetting,
    default_registry,
    environment_name_of,
    flag_of,
    key_of,
    kind_of,
    read_settings,
)
from tests.support.wrong_settings import WRONG, WRONG_TYPES

NAMES = [setting.name for setting in fields(Settings)]
KIND = {setting.name: kind_of(setting) for setting in fields(Settings)}


def configuration(tmp_path, **values):
    path = tmp_path / "configuration.json"
    path.write_text(json.dumps(values))
    return path


def cases(of):
    return [(name, value) for name, values in of.items() for value in values]


def test_every_setting_has_wrong_values_here():
    assert list(WRONG) == NAMES
    assert all(WRONG.values())


@pytest.mark.parametrize("place", ["flag", "environment", "file"])
@pytest.mark.parametrize(("name", "value"), cases(WRONG))
def test_a_wrong_value_is_refused_with_key_value_and_what_is_allowed(tmp_path, place, name, value):
    flags, environment, file = {}, {}, None
    if place == "flag":
        key = flag_of(name)
        flags[name] = value
    elif place == "environment":
        key = environment_name_of(name)
        environment[key] = value
    else:
        key = key_of(name)
        file = configuration(tmp_path, **{key: value})
    with pytest.raises(BadSetting) as refusal:
        read_settings(flags, environment, file)
    said = str(refusal.value)
    assert said == f"{key} is {repr(value)[:200]}; it must be {KIND[name].allowed}."
    assert said.isprintable()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", WRONG_TYPES, ids=repr)
def test_a_value_of_another_type_is_refused(tmp_path, name, value):
    if name in ("auto_start", "unload_first") and isinstance(value, bool):
        assert getattr(read_settings({}, {}, configuration(tmp_path, **{key_of(name): value})), name) is value
        return
    with pytest.raises(BadSetting) as refusal:
        read_settings({}, {}, configuration(tmp_path, **{key_of(name): value}))
    assert str(refusal.value) == f"{key_of(name)} is {value!r}; it must be {KIND[name].allowed}."


@pytest.mark.parametrize("value", ["\ud800", "/\ud800", "unix:///\ud800"])
@pytest.mark.parametrize("name", NAMES)
def test_text_that_the_file_system_cannot_hold_is_refused(tmp_path, name, value):
    with pytest.raises(BadSetting):
        read_settings({}, {}, configuration(tmp_path, **{key_of(name): value}))


@given(st.sampled_from(NAMES), st.text(max_size=300) | st.floats() | st.integers())
def test_any_value_is_read_or_refused_and_nothing_else(name, value):
    try:
        settings = read_settings({name: value}, {}, None)
    except BadSetting as refusal:
        assert flag_of(name) in str(refusal)
    else:
        assert type(getattr(settings, name)) is type(getattr(Settings(), name)) or name == "registry"


# --- values that are taken


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("socket", "unix:///run/agent.sock", "unix:///run/agent.sock"),
        ("socket", "unix:/run/agent.sock", "unix:///run/agent.sock"),
        ("socket", "unix:///" + "x" * 106, "unix:///" + "x" * 106),
        ("socket_mode", "0600", 0o600),
        ("socket_mode", "666", 0o666),
        ("socket_group", "", ""),
        ("socket_group", "root", "root"),
        ("registry", "/srv/models", Path("/srv/models")),
        ("threads", "4", 4),
        ("threads", 4, 4),
        ("threads", 4.0, 4),  # the Java nucleus writes numbers so
        ("threads", "4.0", 4),
        ("threads", 0, 0),
        ("threads", 256, 256),
        ("calls_in_flight", 1, 1),
        ("queue_length", 0, 0),
        ("queue_length", "48", 48),
        ("load_time_limit", 1, 1.0),
        ("load_time_limit", "86400", 86400.0),
        ("run_time_limit", "0.1", 0.1),
        ("log_format", "json", "json"),
        ("log_level", "debug", "debug"),
    ],
)
def test_a_right_value_is_read_as_number_or_as_text(tmp_path, name, value, expected):
    settings = read_settings({}, {}, configuration(tmp_path, **{key_of(name): value}))
    assert getattr(settings, name) == expected
    assert type(getattr(settings, name)) is type(expected) or name == "registry"


def test_a_relative_registry_lies_where_the_agent_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_settings({"registry": "models"}, {}, None).registry == tmp_path / "models"


def test_without_any_word_the_defaults_are_in_force():
    assert read_settings({}, {}, None) == Settings()
    assert read_settings(dict.fromkeys(NAMES), {"PATH": "/bin", "HOME": "/root"}, None) == Settings()


@pytest.mark.parametrize("name", NAMES)
def test_a_default_is_a_value_that_might_be_given(name):
    default = getattr(Settings(), name)
    given = f"{default:o}" if name == "socket_mode" else str(default)
    assert getattr(read_settings({name: given}, {}, None), name) == default


def test_flag_before_environment_before_file_before_default(tmp_path):
    flags, environment = {"threads": "1"}, {"EDGE_AGENT_THREADS": "2", "EDGE_AGENT_QUEUE_LENGTH": "2"}
    file = configuration(tmp_path, Threads=3, QueueLength=3, CallsInFlight=3)
    settings = read_settings(flags, environment, file)
    assert (settings.threads, settings.queue_length, settings.calls_in_flight) == (1, 2, 3)
    assert settings.run_time_limit == Settings().run_time_limit


def test_a_setting_is_spelled_for_its_place():
    assert (flag_of("run_time_limit"), environment_name_of("run_time_limit"), key_of("run_time_limit")) == (
        "--run-time-limit",
        "EDGE_AGENT_RUN_TIME_LIMIT",
        "RunTimeLimit",
    )


# --- the file


@pytest.mark.parametrize("key", ["Thread", "threads", "THREADS", "queue_length", "", "a\nb"])
def test_an_unknown_key_of_the_file_is_named(tmp_path, key):
    with pytest.raises(UnknownSetting) as refusal:
        read_settings({}, {}, configuration(tmp_path, Threads=2, **{key: 1}))
    assert f"names the setting {key!r}, which does not exist" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_variable_of_the_environment_is_named():
    with pytest.raises(UnknownSetting) as refusal:
        read_settings({}, {"EDGE_AGENT_SOKCET": "x", "PATH": "/bin"}, None)
    assert "the environment names the setting 'EDGE_AGENT_SOKCET', which does not exist" in str(refusal.value)


def test_a_null_in_the_file_is_a_wrong_value_and_not_the_default(tmp_path):
    with pytest.raises(BadSetting) as refusal:
        read_settings({}, {}, configuration(tmp_path, Threads=None))
    assert "Threads is None; it must be a whole number from 0 to 256" in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"{} {}", b"[" * 100_000, b'{"Threads": ' + b"9" * 5000],
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    file = tmp_path / "configuration.json"
    file.write_bytes(content)
    with pytest.raises(BadSetting, match=r"^--config is '.*configuration\.json'; it must be a "):
        read_settings({}, {}, file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for file in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(BadSetting, match=r"^--config is "):
            read_settings({}, {}, file)


# --- what every setting has


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
def test_every_setting_says_in_a_sentence_what_it_is_for(setting):
    sentence = setting.metadata["sentence"]
    assert sentence.endswith(".")
    assert sentence[0].isupper()
    assert len(sentence.split()) >= 3
    assert kind_of(setting).allowed
    assert setting.metadata["shown"]


# --- where the registry is by default


def test_the_registry_of_root_is_the_devices_and_anyone_elses_their_own(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_registry() == Path("/var/lib/edge-agent/registry")
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setenv("HOME", "/home/line")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert default_registry() == Path("/home/line/.local/state/edge-agent/registry")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_registry() == Path("/state/edge-agent/registry")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    assert default_registry().is_absolute()
