from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.metrics.background_change import (
    BackgroundChange,
    TrueBackgroundChange,
)
from flashmotion_jax.evaluation.metrics.base import Frame
from flashmotion_jax.evaluation.metrics.flicker import Flicker, TrueFlicker
from flashmotion_jax.evaluation.metrics.temporal import nearest


def measured(frames, objects=None):
    """Flicker and background change; those of the truth are computed alike."""
    results = []
    for of_truth in (False, True):
        metrics = (
            (TrueFlicker(), TrueBackgroundChange()) if of_truth else (Flicker(), BackgroundChange())
        )
        for f, pixels in enumerate(frames):
            pixels = pixels.astype(np.uint8)
            masks = None if objects is None else objects[f][None]
            frame = (
                Frame(0 * pixels, pixels, true_masks=masks)
                if of_truth
                else Frame(pixels, masks=masks)
            )
            for metric in metrics:
                metric.add(frame)
        results.append([metric.values() for metric in metrics])
    np.testing.assert_array_equal(*results)
    return results[0]


def test_alternating_levels_flicker_and_a_ramp_does_not():
    shape = (6, 4, 5, 3)
    alternating = np.full(shape, 100) + 8 * (np.arange(6) % 2)[:, None, None, None]
    flicker, change = measured(alternating)
    np.testing.assert_array_equal(flicker, [np.nan, 8, 8, 8, 8, np.nan])
    assert np.isnan(change).all()
    ramp = np.full(shape, 10) + 20 * np.arange(6)[:, None, None, None]
    np.testing.assert_array_equal(measured(ramp)[0][1:-1], 0)


def test_motion_is_not_flicker_and_flicker_grows_with_noise():
    edge = np.zeros((6, 8, 12, 3))
    for t in range(6):
        edge[t, :, : 2 * t] = 200
    assert np.nanmax(measured(edge)[0]) == 0
    rng = np.random.default_rng(0)
    means = [
        np.nanmean(measured((edge + 20 + rng.normal(0, s, edge.shape)).clip(0, 255))[0])
        for s in (0, 2, 6)
    ]
    assert means == sorted(means) and means[0] < means[1] < means[2]


def test_background_is_what_no_object_covers():
    frames = np.zeros((3, 4, 6, 3))
    objects = np.zeros((3, 2, 3), bool)  # half the size of the frames
    objects[:, :, 0] = True
    frames[1, :, :2] = 255  # the object's two columns
    frames[2, :, 2:] = 6
    _, change = measured(frames, objects)
    np.testing.assert_array_equal(change, [np.nan, 0, 6])
    assert np.isnan(measured(frames, np.ones((3, 4, 6), bool))[1]).all()


def test_eight_bits_measure_what_wider_integers_do():
    rng = np.random.default_rng(0)
    frames = rng.choice([0, 1, 127, 128, 254, 255], (6, 9, 7, 3))
    objects = rng.random((6, 9, 7)) < 0.4
    flicker, change = measured(frames, objects)
    for f in range(1, 6):
        background = ~(objects[f - 1] | objects[f])
        assert change[f] == np.abs(frames[f] - frames[f - 1])[background].mean()
    for f in range(1, 5):
        before, middle, after = frames[f - 1 : f + 2]
        up = np.minimum(middle - before, middle - after).clip(min=0)
        down = np.minimum(before - middle, after - middle).clip(min=0)
        assert flicker[f] == (up + down).mean()


def test_sizes():
    np.testing.assert_array_equal(nearest(np.eye(2, dtype=bool), 4, 4)[0], [1, 1, 0, 0])
    with pytest.raises(ValueError, match="in one video"):
        measured([np.zeros((4, 4, 3)), np.zeros((4, 5, 3))])
