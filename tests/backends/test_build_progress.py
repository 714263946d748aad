"""Phases of a build, made one figure."""

import itertools

import pytest

from agent.backends.build_progress import BuildProgress


@pytest.fixture
def told():
    return []


@pytest.fixture
def progress(told):
    seconds = itertools.count(0, 2)
    return BuildProgress(told.append, "building", lambda: next(seconds))


def test_it_says_at_once_that_it_will_take_long(progress, told):
    assert told == ["building: this takes minutes, once"]


def test_phases_within_phases_make_one_percentage(progress, told):
    progress.phase_began("all", None, 4)
    progress.step_done("all", 0)
    progress.phase_began("part", "all", 2)
    progress.step_done("part", 0)
    progress.phase_began("detail", "part", 10)
    progress.step_done("detail", 4)
    progress.phase_ended("detail")
    progress.step_done("part", 1)
    progress.phase_ended("part")
    progress.step_done("all", 1)
    progress.step_done("all", 3)
    assert told[1:] == [
        "building: 25 % after 2 s",
        "building: 37 % after 4 s",
        "building: 43 % after 6 s",
        "building: 50 % after 8 s",
        "building: 50 % after 10 s",
        "building: 99 % after 12 s",
    ]


def test_a_second_pass_does_not_count_back(progress, told):
    progress.phase_began("all", None, 2)
    progress.step_done("all", 1)
    progress.phase_began("all", None, 2)
    progress.step_done("all", 0)
    assert [text.split()[1] for text in told[1:]] == ["99", "99"]


def test_steps_nobody_announced_and_phases_of_none_do_no_harm(progress, told):
    progress.step_done("unknown", 0)
    progress.phase_ended("unknown")
    progress.phase_began("empty", None, 0)
    progress.phase_began("itself", "itself", 3)
    progress.step_done("itself", 1)
    assert len(told) == 3


def test_it_does_not_speak_more_often_than_people_read(told):
    progress = BuildProgress(told.append, "building", lambda: 0.0)
    progress.phase_began("all", None, 100)
    for step in range(100):
        progress.step_done("all", step)
    assert len(told) == 1
