from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flashmotion_jax.config import DiTConfig, Grid, SamplingConfig, VAEConfig
from flashmotion_jax.data.magicdata import MagicData
from flashmotion_jax.inference.request import make_request
from flashmotion_jax.media.frames import iterate_frames
from flashmotion_jax.media.geometry import fit_frames
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import (
    Camera,
    Canvas,
    Keyframe,
    TrackedObject,
    Trajectory,
    apply_camera,
    load_maps,
    render,
)
from helpers import magicdata_tree as tree

SAMPLING = SamplingConfig(height=64, width=96, num_frames=17)
#: Tokens of 8 x 16 pixels, two frames a latent frame.
DIT = DiTConfig(patch_size=(1, 2))
VAE = VAEConfig(
    multipliers=(1, 2, 2), temporal_downsample=(False, True), patch_size=2, latent_channels=48
)


def make(image=None, sampling=SAMPLING, seed=0, **options):
    grid = Grid.of(DIT, VAE)
    return make_request(
        image, "a", None, seed, sampling=sampling, grid=grid, has_adapter=False, **options
    )


def test_the_grid_of_wan22_and_of_other_models():
    assert Grid.of(DiTConfig(), VAEConfig()) == Grid(32, 32, 4)
    assert Grid.of(DIT, VAE) == Grid(8, 16, 2)


def test_sizes_of_the_grid_are_taken():
    request = make(height=24, width=48, num_frames=3)
    assert (request.height, request.width, request.num_frames) == (24, 48, 3)
    request = make()
    assert (request.height, request.width, request.num_frames) == (64, 96, 17)


def test_an_image_takes_its_aspect_ratio_within_the_grid_and_the_area():
    request = make(np.zeros((300, 200, 3), np.uint8))
    assert (request.height, request.width) == (96, 64)
    request = make(np.zeros((100, 250, 3), np.uint8))
    assert (request.height, request.width) == (48, 128)
    assert request.images.shape == (1, 1, 48, 128, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"height": 24, "width": 40},
            r"height=24, width=40; expected a height that is a multiple of 8 and a width that is a "
            "multiple of 16, for instance height=24, width=32",
        ),
        ({"height": 20, "width": 48}, "for instance height=16, width=48"),
        ({"height": -8, "width": 48}, "for instance height=8, width=48"),
        ({"num_frames": 4}, r"num_frames=4; expected 2 n \+ 1, for instance 5"),
        ({"seed": 2**63 - 1}, r"seed=9223372036854775807; expected"),
        ({"seed": -(2**64)}, "expected a number of 64 bits"),
        ({"height": 64000, "width": 64000}, "the video: 64000 x 64000 pixels"),
        ({"num_frames": 1000001}, "the video: 1000001 frames of 64 x 96 pixels"),
        ({"adapter_scale": float("nan")}, "adapter_scale=nan; expected a finite number"),
        ({"adapter_scale": float("inf")}, "adapter_scale=inf; expected a finite number"),
        ({"num_frames": 0}, r"num_frames=0; expected 2 n \+ 1, for instance 1"),
        ({"sampling": SamplingConfig(height=60, width=96)}, "height=60, width=96"),
        ({"image": np.zeros((1, 5000, 3), np.uint8)}, "in multiples of 8 x 16: crop it"),
    ],
)
def test_sizes_off_the_grid_raise(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_maps_are_colored_as_the_model_was_trained_on():
    """By each video's own image; without one, as the objects say."""
    box = TrackedObject(1, (Keyframe(0, (0.2, 0.2, 0.6, 0.6)),))
    trajectory = Trajectory(Canvas(96, 64), 17, 8.0, (box,))
    images = [np.full((64, 96, 3), color, np.uint8) for color in ((200, 30, 40), (20, 90, 210))]
    options = {"grid": Grid.of(DIT, VAE), "has_adapter": True}
    own = dataclasses.replace(SAMPLING, map_kind="filled_box", map_colors="image")
    request = make_request(images, ["a", "b"], trajectory, 0, sampling=own, **options)
    for image, maps in zip(images, request.maps, strict=True):
        expected = render(trajectory, 64, 96, "filled_box", image=image)
        assert {tuple(pixel) for pixel in expected[:, 30, 40]} == {tuple(image[0, 0])}
        np.testing.assert_array_equal(maps, expected)
    request = make_request(None, "a", trajectory, 0, sampling=own, **options)
    np.testing.assert_array_equal(request.maps[0], render(trajectory, 64, 96, "filled_box"))


def test_maps_show_what_the_model_was_trained_on():
    box = TrackedObject(1, (Keyframe(0, (0.2, 0.2, 0.6, 0.6)),))
    trajectory = Trajectory(Canvas(96, 64), 17, 8.0, (box,))
    sampling = dataclasses.replace(SAMPLING, map_kind="filled_box")
    grid = Grid.of(DIT, VAE)
    for kind, expected in [(None, "filled_box"), ("box", "box")]:
        request = make_request(
            None, "a", trajectory, 0, sampling=sampling, grid=grid, has_adapter=True, map_kind=kind
        )
        np.testing.assert_array_equal(request.maps[0], render(trajectory, 64, 96, expected))


def test_a_camera_moves_the_maps_of_a_trajectory_and_of_a_file(tmp_path):
    box = TrackedObject(1, (Keyframe(0, (0.2, 0.2, 0.6, 0.6)),))
    trajectory = Trajectory(Canvas(96, 64), 17, 8.0, (box,))
    trajectory.save(tmp_path / "trajectory.json")
    camera = Camera(pan=(0.2, 0.0), roll=10, anchors=True)
    expected = render(apply_camera(trajectory, camera), 64, 96)
    options = {"sampling": SAMPLING, "grid": Grid.of(DIT, VAE), "camera": camera}
    for source in (trajectory, tmp_path / "trajectory.json"):
        request = make_request(None, "a", source, 0, has_adapter=True, **options)
        np.testing.assert_array_equal(request.maps[0], expected)
    with pytest.raises(UserError, match="a camera moves boxes or points, and maps have none"):
        make_request(None, "a", expected, 0, has_adapter=True, **options)
    with pytest.raises(UserError, match="a camera without a trajectory to move"):
        make_request(None, "a", None, 0, has_adapter=False, **options)


@pytest.mark.parametrize("resize", ["crop", "stretch"])
@pytest.mark.parametrize("shape", [(300, 200), (100, 250), (64, 96)])
def test_image_and_maps_have_the_geometry_of_the_checkpoint_and_the_cache(tmp_path, shape, resize):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    moved = Keyframe(0, (0.2, 0.1, 0.5, 0.6)), Keyframe(4, (0.5, 0.4, 0.9, 0.9))
    trajectory = Trajectory(Canvas(*shape[::-1]), 5, 24.0, (TrackedObject(1, moved),))
    sampling = dataclasses.replace(SAMPLING, num_frames=5, size_from="model", resize=resize)
    request = make_request(
        image, "a", trajectory, 0, sampling=sampling, grid=Grid.of(DIT, VAE), has_adapter=True
    )
    np.testing.assert_array_equal(request.images[0, 0], fit_frames(image, 64, 96, resize))
    np.testing.assert_array_equal(request.maps[0], render(trajectory, 64, 96, resize=resize))
    # Maps as pixels, and the frames of a training video, take the same way.
    whole = render(trajectory, *shape)
    of_pixels = load_maps(whole, num_frames=5, height=64, width=96, resize=resize)
    np.testing.assert_array_equal(of_pixels, fit_frames(whole, 64, 96, resize, nearest=True))
    folder = tree.make_tree(tmp_path, 1)
    example = MagicData(folder, num_frames=2, height=64, width=96, resize=resize)[0]
    first = next(iter(iterate_frames(folder / "videos" / "v0.mp4")))
    np.testing.assert_array_equal(example.video[0], fit_frames(first, 64, 96, resize))
