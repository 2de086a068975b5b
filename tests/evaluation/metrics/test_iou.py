from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.metrics.box_iou import bounding_boxes, box_iou
from flashmotion_jax.evaluation.metrics.centroid_error import centroid_error
from flashmotion_jax.evaluation.metrics.mask_iou import mask_iou


def rectangle(x0, y0, x1, y1, height=40, width=60):
    mask = np.zeros((1, 1, height, width), bool)
    mask[..., y0:y1, x0:x1] = True
    return mask


TRUE = rectangle(10, 10, 30, 20)
EMPTY = np.zeros_like(TRUE)


@pytest.mark.parametrize("shift", range(0, 22, 3))
def test_a_shifted_rectangle(shift):
    pred = rectangle(10 + shift, 10, 30 + shift, 20)
    overlap = max(20 - shift, 0)
    expected = overlap / (40 - overlap)
    assert mask_iou(pred, TRUE).item() == pytest.approx(expected)
    assert box_iou(bounding_boxes(pred), bounding_boxes(TRUE)).item() == pytest.approx(expected)
    assert centroid_error(pred, TRUE).item() == pytest.approx(shift)


def test_boxes_are_half_open_and_nan_around_nothing():
    np.testing.assert_array_equal(bounding_boxes(TRUE), [[[10, 10, 30, 20]]])
    assert np.isnan(bounding_boxes(EMPTY)).all()


def test_a_box_hides_what_a_mask_shows():
    cross = rectangle(10, 14, 30, 16) | rectangle(18, 10, 22, 20)
    assert box_iou(bounding_boxes(cross), bounding_boxes(TRUE)).item() == 1
    assert mask_iou(cross, TRUE).item() == pytest.approx((2 * 20 + 4 * 8) / 200)


def test_boxes_may_leave_the_canvas_and_miss_each_other():
    true = np.array([[[-0.5, 0.0, 0.5, 1.0], [0.0, 0.0, 0.2, 0.2]]])
    pred = np.array([[[0.0, 0.0, 0.5, 1.0], [0.5, 0.5, 0.7, 0.7]]])
    np.testing.assert_allclose(box_iou(pred, true), [[0.5, 0.0]])


def test_a_lost_object_has_the_worst_scores():
    assert mask_iou(EMPTY, TRUE).item() == 0
    assert box_iou(bounding_boxes(EMPTY), bounding_boxes(TRUE)).item() == 0
    assert centroid_error(EMPTY, TRUE).item() == pytest.approx(np.hypot(40, 60) / 2)


@pytest.mark.parametrize("pred", [TRUE, EMPTY])
def test_hidden_objects_do_not_count(pred):
    assert np.isnan(mask_iou(pred, EMPTY)).all()
    assert np.isnan(box_iou(bounding_boxes(pred), bounding_boxes(EMPTY))).all()
    assert np.isnan(centroid_error(pred, EMPTY)).all()


def test_objects_and_frames_are_independent():
    rng = np.random.default_rng(0)
    pred, true = rng.random((2, 3, 4, 8, 8)) > 0.5
    for measure in (mask_iou, centroid_error):
        together = measure(pred, true)
        assert together.shape == (3, 4)
        assert together[1, 2] == measure(pred[1:2, 2:3], true[1:2, 2:3]).item()


@pytest.mark.parametrize("pred", [TRUE[0], TRUE[..., 1:], TRUE.astype(np.uint8)])
@pytest.mark.parametrize("measure", [mask_iou, centroid_error])
def test_other_masks_raise(measure, pred):
    with pytest.raises(ValueError, match=r"expected bool of one shape \[K, F, H, W\]"):
        measure(pred, TRUE)


def test_other_boxes_raise():
    with pytest.raises(ValueError, match=r"expected one shape \[K, F, 4\]"):
        box_iou(np.zeros((2, 4)), np.zeros((2, 4)))
