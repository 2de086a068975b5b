from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from flashmotion_jax.data.sprites import Sprites, SpritesConfig
from flashmotion_jax.evaluation.features.random_network import RandomNetwork
from flashmotion_jax.evaluation.frechet import frechet_distance


@pytest.fixture(scope="module")
def videos():
    """Real clips in two halves."""
    clips = Sprites(96, split="test", config=SpritesConfig(num_frames=8, height=48, width=48))
    return np.stack([clips[i].video for i in range(96)]).reshape(2, 48, 8, 48, 48, 3)


def blurred(videos, radius):
    """All frames but the first, which is given."""
    result = videos.copy()
    for video in result:
        for frame in video[1:]:
            frame[:] = Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius))
    return result


def noisy(videos, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, videos.shape)
    return np.clip(np.rint(videos + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", [0, 1])
def test_distances_rank_distortions(videos, seed):
    real, other = videos
    network = RandomNetwork(seed)
    features = network.video_features(other)

    def distance(videos):
        return frechet_distance(network.video_features(videos), features)

    floor = distance(real)
    slightly, blur = distance(blurred(real, 0.5)), distance(blurred(real, 1))
    faint, noise = distance(noisy(real, 3)), distance(noisy(real, 8))
    frozen, slowed = distance(real[:, [0] * 8]), distance(real[:, np.arange(8) // 2])
    assert 2 * floor < slightly and 3 * slightly < blur
    assert 2 * floor < faint and 3 * faint < noise
    assert 1.2 * floor < slowed and 2 * slowed < frozen


def test_image_distances_do_not_see_motion(videos):
    real, other = videos
    network = RandomNetwork()
    features = network.image_features(other[:, ::4].reshape(-1, 48, 48, 3))

    def distance(videos):
        frames = videos[:, [1, 5]].reshape(-1, 48, 48, 3)
        return frechet_distance(network.image_features(frames), features)

    assert distance(real) * 4 < distance(blurred(real, 1))
    assert distance(real[:, ::-1]) == pytest.approx(distance(real), rel=0.5)


def test_features_match_the_golden_run():
    # With other features, distances could not be compared with those measured before.
    videos = np.random.default_rng(0).integers(0, 256, (1, 5, 16, 16, 3), np.uint8)
    features = RandomNetwork().video_features(videos)
    assert features.shape == (1, 64) and features.dtype == np.float32
    golden = [-0.70138, -1.03397, -1.20220, -1.16581, -1.54286, -1.80961, -1.98416, -1.94829]
    np.testing.assert_allclose(features[0, ::9], golden, atol=1e-4)


def test_batches_and_repeats_change_nothing():
    videos = np.random.default_rng(1).integers(0, 256, (5, 4, 8, 8, 3), np.uint8)
    whole = RandomNetwork().video_features(videos)
    np.testing.assert_array_equal(whole, RandomNetwork().video_features(videos))
    np.testing.assert_allclose(RandomNetwork(batch_size=2).video_features(videos), whole, atol=1e-5)
    assert np.abs(RandomNetwork(seed=1).video_features(videos) - whole).max() > 0.1


def test_features_match_a_convolution_of_torch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    videos = np.random.default_rng(2).integers(0, 256, (2, 6, 12, 10, 3), np.uint8)
    network = RandomNetwork()
    x = torch.from_numpy(videos).permute(0, 4, 1, 2, 3) / 127.5 - 1
    expected = []
    strides = [(1, 1, 1), (1, 2, 2), (2, 2, 2)]
    for kernel, stride in zip(network._kernels, strides, strict=True):
        weight = torch.from_numpy(np.array(kernel)).unflatten(2, (3, -1)).permute(4, 3, 2, 0, 1)
        x = functional.conv3d(functional.pad(x, (1,) * 6, "replicate"), weight, stride=stride).abs()
        flat = x.flatten(2)
        expected += [flat.mean(-1), flat.std(-1, correction=0)]
    expected = (torch.cat(expected, 1) + 2 / 255).log().numpy()
    np.testing.assert_allclose(network.video_features(videos), expected, atol=1e-4)


def test_other_shapes_raise():
    network = RandomNetwork()
    for videos in (np.zeros((1, 4, 8, 8, 3)), np.zeros((4, 8, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"expected uint8 \[N, F, H, W, 3\]"):
            network.video_features(videos)
    with pytest.raises(ValueError, match=r"expected uint8 \[M, H, W, 3\]"):
        network.image_features(np.zeros((1, 4, 8, 8, 3), np.uint8))
