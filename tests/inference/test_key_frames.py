"""Last images and key frames: what is asked for, and that the video keeps them."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax import Pipeline, SamplingConfig
from flashmotion_jax.checkpoints import components
from flashmotion_jax.cli.main import main
from flashmotion_jax.config import Grid
from flashmotion_jax.inference.chunks import encode_videos
from flashmotion_jax.inference.encoding import encode_request, num_encoded
from flashmotion_jax.inference.request import make_request
from flashmotion_jax.runtime.errors import UserError
from helpers import tiny

#: Four frames a latent frame, as in Wan2.2.
GRID = Grid(8, 16, 4)
SAMPLING = SamplingConfig(height=32, width=64, num_frames=17, knows_key_frames=True)


def picture(seed: int, height: int = 32, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


FIRST = picture(0)


def make(sampling=SAMPLING, image=FIRST, prompt="a", **options):
    return make_request(
        image, prompt, None, 0, sampling=sampling, grid=GRID, has_adapter=False, **options
    )


def test_nothing_is_given_by_default():
    assert make().keys is None


@pytest.mark.parametrize(
    ("options", "frames", "seeds"),
    [
        ({"last_image": picture(1)}, (4,), [1]),
        ({"key_frames": {8: picture(2)}}, (2,), [2]),
        (
            {"last_image": picture(1), "key_frames": {12: picture(3), 4: picture(2)}},
            (1, 3, 4),
            [2, 3, 1],
        ),
    ],
)
def test_images_of_latent_frames(options, frames, seeds):
    keys = make(**options).keys
    assert keys.frames == frames
    np.testing.assert_array_equal(keys.images, np.stack([picture(seed) for seed in seeds])[None])


def test_each_video_of_a_batch_has_its_own():
    keys = make(prompt=["a", "b"], last_image=[picture(1), picture(2)]).keys
    np.testing.assert_array_equal(keys.images[:, 0], [picture(1), picture(2)])


def test_a_frame_within_a_latent_frame_is_held_over_it():
    with pytest.warns(UserWarning, match="held over whole latent frames: 6 over 5 to 8"):
        assert make(key_frames={6: picture(1)}).keys.frames == (2,)


def test_a_model_that_was_not_trained_with_key_frames_is_told():
    sampling = dataclasses.replace(SAMPLING, knows_key_frames=False)
    with pytest.warns(UserWarning, match="may ignore or fade to a last image"):
        make(sampling, last_image=picture(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"key_frames": {0: picture(1)}},
            "key frame 0; expected a whole number from 1 to 16; frame 0",
        ),
        ({"key_frames": {17: picture(1)}}, "key frame 17; expected a whole number from 1 to 16"),
        ({"key_frames": {-1: picture(1)}}, "key frame -1; expected"),
        ({"key_frames": {1.5: picture(1)}}, "key frame 1.5; expected a whole number"),
        (
            {"key_frames": {16: picture(1)}, "last_image": picture(1)},
            "key frame 16 is the last frame, for which there is a last image",
        ),
        (
            {"key_frames": {5: picture(1), 7: picture(2)}},
            "key frames 5 and 7 are in one latent frame, which stands for frames 5 to 8; leave one",
        ),
        ({"image": None, "last_image": picture(1)}, "without a first image; give that, too"),
        (
            {"last_image": picture(1, 64, 64)},
            "the image of frame 16 has 64 x 64 pixels, the first 64 x 32; expected the same aspect",
        ),
        ({"last_image": np.zeros((2, 2), np.uint8)}, r"image is uint8 \(2, 2\); expected a path"),
        ({"prompt": ["a", "b"], "last_image": [picture(1)]}, "1 values of key frame for 2 prompts"),
        ({"prompt": ["a", "b"], "last_image": [picture(1), None]}, "no image for key frame 16 of"),
        ({"num_frames": 1, "last_image": picture(1)}, "in a video of one frame; expected more"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--keyframe", "middle.png"],
            "'middle.png'; expected a frame, an equals sign and an image",
        ),
        (["--keyframe", "x=a.png"], "expected a frame, an equals sign and an image"),
    ],
)
def test_bad_arguments_are_status_2(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["sample", *options])
    assert message in capsys.readouterr().err


def test_a_frame_given_twice_is_status_2(folder, capsys):
    options = ["--keyframe", "4=a.png", "--keyframe", "4=b.png"]
    assert main(["sample", "--model", str(folder), "--adapter", "none", *options]) == 2
    assert "--keyframe 4 is given twice; leave one out" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sampling = SamplingConfig(height=32, width=64, num_frames=9, knows_key_frames=True)
    return tiny.save_checkpoint(tmp_path_factory.mktemp("checkpoint"), sampling)


def test_a_key_frame_is_the_second_latent_frame_of_a_still_video(folder):
    vae = components.load_component(folder, "vae", "float32")
    pipeline = Pipeline.from_pretrained(folder, "none")
    factor = vae.config.temporal_factor
    request = pipeline.request(picture(0), "a", last_image=picture(1))
    steps = []
    found = encode_request(vae, request, lambda: steps.append(1))
    assert len(steps) == num_encoded(request, factor) == 3
    still = np.repeat(picture(1)[None, None], 1 + factor, axis=1)
    expected = encode_videos(vae, still, "float32", lambda: None)[:, 1]
    np.testing.assert_array_equal(found.key_frames.latents[:, -1], expected)
    is_given = [False] * (8 // factor) + [True]
    np.testing.assert_array_equal(found.key_frames.is_given_T, is_given)


def test_a_video_with_a_last_image(folder):
    """The last latent frame is that of the image, and changes others than its own."""
    pipeline = Pipeline.from_pretrained(folder, "none")
    plain = pipeline(picture(0), "a ball")
    video = pipeline(picture(0), "a ball", last_image=picture(1))
    assert video.shape == plain.shape
    assert (video[-1] != plain[-1]).any()
    assert (video[1] != plain[1]).any()
    other = pipeline(picture(0), "a ball", last_image=picture(2))
    assert (video[-1] != other[-1]).any()
    np.testing.assert_array_equal(pipeline(picture(0), "a ball"), plain)
    assert jnp.isfinite(video.astype(np.float32)).all()
