from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.segmenters import smallest_on_top


def test_a_pixel_belongs_to_the_smallest_object_there():
    masks = np.zeros((3, 4, 6), bool)
    masks[0, :, :] = True
    masks[1, 1:3, 1:5] = True
    masks[2, 2, 2] = True
    (found,) = smallest_on_top(lambda item, frames: iter([masks]))(None, iter(()))
    assert found.sum() == 24 and found.sum(axis=0).max() == 1
    np.testing.assert_array_equal(found[2], masks[2])
    np.testing.assert_array_equal(found[1], masks[1] & ~masks[2])
