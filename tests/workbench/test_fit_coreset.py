"""The coreset: few patches, near to all."""

import numpy as np
import pytest

from agent.workbench.fit.coreset import k_centre


def patches(count=500, channels=6):
    return np.random.default_rng(0).normal(size=(count, channels)).astype(np.float32)


def covering_radius(points, centres):
    return np.sqrt(((points[:, None] - centres[None]) ** 2).sum(axis=2)).min(axis=1).max()


def test_every_centre_is_a_patch_and_none_is_taken_twice():
    points = patches()
    centres = k_centre(points, 50, np.random.default_rng(1))
    assert len(np.unique(centres, axis=0)) == 50
    assert {tuple(centre) for centre in centres} <= {tuple(point) for point in points}


def test_each_centre_is_the_patch_farthest_from_those_before_it():
    points = patches(200)
    centres = k_centre(points, 20, np.random.default_rng(1))
    for count in range(1, 20):
        distance = covering_radius(centres[count][None], centres[:count])
        assert distance == pytest.approx(covering_radius(points, centres[:count]), rel=1e-4)


def test_a_coreset_covers_better_than_a_random_choice():
    points = patches()
    centres = k_centre(points, 50, np.random.default_rng(1))
    at_random = points[np.random.default_rng(2).choice(len(points), 50, replace=False)]
    assert covering_radius(points, centres) < covering_radius(points, at_random)


def test_equal_patches_are_kept_once():
    points = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    assert len(k_centre(points, 20, np.random.default_rng(0))) == 3


def test_all_patches_are_kept_where_there_are_fewer_than_asked_for():
    assert len(k_centre(patches(10), 20, np.random.default_rng(0))) == 10
