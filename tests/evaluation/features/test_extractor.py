from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.features.extractor import Extractor
from flashmotion_jax.evaluation.features.presets import FID_PRESETS, FVD_PRESETS, PRESETS
from flashmotion_jax.evaluation.frechet import frechet_distance
from helpers.small_networks import write_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_network(folder, "inception", divide=16)
    write_network(folder, "i3d", divide=16, classes=12)
    return folder


def video(seed=0, count=9, size=(36, 64)):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def smooth(seed, count=9, size=(36, 64)):
    """A drifting pattern that resembles a real video."""
    phase = np.random.default_rng(seed).uniform(0, 6.28, 3)
    t, y, x = np.mgrid[:count, : size[0], : size[1]]
    waves = [np.sin(0.2 * x + 0.1 * (i + 1) * y + 0.3 * t + phase[i]) for i in range(3)]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def test_frames_of_a_video_in_batches_of_any_size(weights):
    frames = video(count=5)
    found = Extractor("pytorch-fid", weights, batch_size=4)(iter(frames))
    assert found.shape == (5, 128) and found.dtype == np.float32
    alone = Extractor("pytorch-fid", weights, batch_size=1)
    np.testing.assert_allclose(alone(frames), found, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(alone(frames[::-1]), found[::-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", FVD_PRESETS)
def test_a_video_has_one_row(weights, preset):
    extractor = Extractor(preset, weights)
    found = extractor(iter(video(size=(30, 40))))
    assert found.shape == (1, 12) and np.isfinite(found).all()
    assert extractor.digest in extractor.file.name
    with pytest.raises(ValueError, match="4 frames; I3D, the network of FVD, needs 9"):
        extractor(video(count=4))


def test_presets_differ():
    assert set(FID_PRESETS) | set(FVD_PRESETS) == set(PRESETS)
    assert len({repr(preset) for preset in PRESETS.values()}) == len(PRESETS)


def test_distance_grows_with_noise(weights):
    extractor = Extractor("pytorch-fid", weights, batch_size=8)
    clips = [smooth(seed, count=4) for seed in range(6)]
    real = np.concatenate([extractor(clip) for clip in clips])
    rng = np.random.default_rng(0)
    distances = [0.0]
    for deviation in (5, 20, 60):
        noisy = [np.clip(clip + rng.normal(0, deviation, clip.shape), 0, 255) for clip in clips]
        rows = np.concatenate([extractor(clip.astype(np.uint8)) for clip in noisy])
        distances.append(frechet_distance(rows, real))
    assert distances == sorted(distances)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6 * distances[-1])


def test_wrong_arguments(weights, tmp_path):
    with pytest.raises(ValueError, match="expected one of pytorch-fid"):
        Extractor("fid", weights)
    with pytest.raises(ValueError, match="there is none"):
        Extractor("pytorch-fid", tmp_path)
    with pytest.raises(ValueError, match="without frames"):
        Extractor("pytorch-fid", weights)([])
