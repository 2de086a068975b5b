from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.metrics.motion import temporal_variance
from flashmotion_jax.evaluation.metrics.sharpness import gradient_energy


def test_a_ramp_in_space():
    video = np.zeros((2, 5, 6, 3))
    video += 2 * np.arange(6)[:, None] + 3 * np.arange(5)[:, None, None]
    assert gradient_energy(video) == pytest.approx(2**2 + 3**2)
    assert temporal_variance(video) == 0


def test_a_flicker():
    video = np.zeros((4, 5, 6, 3), np.uint8)
    video[1::2] = 200
    assert gradient_energy(video) == 0
    assert temporal_variance(video) == 100**2


def test_pixels_do_not_wrap_around():
    video = np.zeros((1, 2, 2, 3), np.uint8)
    video[0, 0] = 255
    assert gradient_energy(video) == 255**2


@pytest.mark.parametrize("measure", [gradient_energy, temporal_variance])
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (4, 4, 4), (4, 4, 4, 1)])
def test_other_shapes_raise(measure, shape):
    with pytest.raises(ValueError, match=r"expected \[F, H, W, 3\]"):
        measure(np.zeros(shape))
