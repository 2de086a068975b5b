from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from flashmotion_jax.config import MapKind
from flashmotion_jax.media.geometry import fit_frames
from flashmotion_jax.trajectory import (
    PALETTE,
    Canvas,
    Keyframe,
    Mask,
    TrackedObject,
    Trajectory,
    render,
    render_masks,
)
from flashmotion_jax.trajectory.keyframes import Box
from flashmotion_jax.trajectory.render import image_colors


def one_object(box: Box, *later: Keyframe, canvas: Canvas | None = None, mask: Mask | None = None):
    item = TrackedObject(1, (Keyframe(0, box), *later), mask=mask)
    return Trajectory(canvas or Canvas(200, 100), 5, 24.0, (item,))


def disc(height: int, width: int, center: tuple[int, int], radius: int) -> np.ndarray:
    return cv2.circle(np.zeros((height, width), np.uint8), center, radius, 1, -1).astype(bool)


def magicmotion_maps(masks: list[np.ndarray], deltas: list[list[int]], num_frames: int):
    """MagicMotion's construction, with OpenCV: masks, then boxes moved by whole pixels a frame."""
    height, width = masks[0].shape
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for k in sorted(range(len(masks)), key=lambda k: -masks[k].sum()):
        frames[0][masks[k]] = PALETTE[k + 1]
    for k, mask in enumerate(masks):
        x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
        for frame in range(1, num_frames):
            x, y, w, h = (edge + delta for edge, delta in zip((x, y, w, h), deltas[k], strict=True))
            color = PALETTE[k + 1].tolist()
            thickness = min(height, width) // 100
            cv2.rectangle(frames[frame], (x, y), (x + w, y + h), color, thickness=thickness)
    return frames


@pytest.mark.parametrize(("height", "width"), [(240, 320), (480, 720), (90, 61), (704, 1280)])
def test_equals_magicmotions_own_drawing(height: int, width: int):
    masks = [
        disc(height, width, (width // 3, height // 2), height // 4),
        disc(height, width, (width // 2, height // 3), height // 6),
    ]
    deltas = [[width // 15, 0, 0, 0], [-width // 20, height // 20, 1, -1]]
    objects = []
    size = np.array([width, height] * 2)
    for k, (mask, delta) in enumerate(zip(masks, deltas, strict=True)):
        start = np.array(Mask.from_array(mask).box()) * size
        dx, dy, dw, dh = delta
        end = start + 12 * np.array([dx, dy, dx + dw, dy + dh])
        keys = [Keyframe(f, tuple((b / size).tolist())) for f, b in ((0, start), (12, end))]
        # The compatible mode ignores the object's own color.
        objects.append(
            TrackedObject(k + 1, tuple(keys), color=f"#1234{k}5", mask=Mask.from_array(mask))
        )
    trajectory = Trajectory(Canvas(width, height), 13, 8.0, tuple(objects))
    maps = render(trajectory, height, width, compat="magicmotion")
    np.testing.assert_array_equal(maps, magicmotion_maps(masks, deltas, 13))
    assert tuple(render(trajectory, height, width)[0][masks[1]][0]) == (0x12, 0x34, 0x15)


def test_frame_0_is_the_filled_box_without_a_mask():
    maps = render(one_object((0.1, 0.2, 0.5, 0.6)), 100, 200)
    inside = (maps[0] == PALETTE[1]).all(axis=-1)
    assert inside.sum() == 40 * 80
    assert inside[20:60, 20:100].all()
    assert maps[1].any(axis=-1).sum() < 300


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (33, 200), (300, 100)])
def test_masks_follow_the_images_own_crop(height: int, width: int):
    mask = np.random.default_rng(0).random((100, 150)) > 0.5
    trajectory = one_object(
        (0.0, 0.0, 1.0, 1.0), canvas=Canvas(150, 100), mask=Mask.from_array(mask)
    )
    image = np.where(mask[..., None], PALETTE[1], 0).astype(np.uint8)
    expected = fit_frames(image, height, width, nearest=True)
    np.testing.assert_array_equal(render(trajectory, height, width)[0], expected)


@pytest.mark.parametrize(("height", "width"), [(400, 400), (704, 1280), (200, 90)])
def test_boxes_follow_the_images_own_crop(height: int, width: int):
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 90:120] = 255
    cropped = fit_frames(image, height, width, nearest=True)
    rows, columns = cropped.any(axis=(1, 2)).nonzero()[0], cropped.any(axis=(0, 2)).nonzero()[0]
    maps = render(one_object((0.45, 0.4, 0.6, 0.6)), height, width)
    ys, xs = maps[1].any(axis=-1).nonzero()
    radius = (min(height, width) // 100 + 1) // 2
    np.testing.assert_allclose(
        [ys.min() + radius, ys.max() - radius + 1], [rows[0], rows[-1] + 1], atol=1.5
    )
    np.testing.assert_allclose(
        [xs.min() + radius, xs.max() - radius + 1], [columns[0], columns[-1] + 1], atol=1.5
    )


def test_boxes_may_leave_the_canvas():
    outside = Keyframe(4, (1.5, 1.5, 2.0, 2.0))
    maps = render(one_object((0.6, 0.6, 0.9, 0.9), outside), 100, 200)
    assert maps[1].any()
    assert not maps[4].any()


def test_mask_kind_moves_and_scales_the_mask():
    mask = np.zeros((100, 200), bool)
    mask[10:30, 20:60] = disc(20, 40, (20, 10), 8)
    box = (0.1, 0.1, 0.3, 0.3)
    moved = Keyframe(4, (0.5, 0.4, 0.9, 0.8))
    maps = render(one_object(box, moved, mask=Mask.from_array(mask)), 100, 200, "mask")
    np.testing.assert_array_equal(maps[0].any(axis=-1), mask)
    expected = np.zeros_like(mask)
    expected[40:80, 100:180] = mask[10:30, 20:60].repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(maps[4].any(axis=-1), expected)
    gone = Keyframe(4, (0.5, 0.4, 0.5, 0.8))
    maps = render(one_object(box, gone, mask=Mask.from_array(mask)), 100, 200, "mask")
    assert not maps[4].any()


def test_higher_ids_are_drawn_over_lower_ones_whatever_their_order():
    box = (Keyframe(0, (0.2, 0.2, 0.8, 0.8)),)
    for ids in itertools.permutations((1, 2, 3)):
        objects = tuple(TrackedObject(k, box) for k in ids)
        maps = render(Trajectory(Canvas(50, 50), 2, 24.0, objects), 50, 50)
        colors = np.unique(maps[1].reshape(-1, 3), axis=0)
        assert colors.tolist() == [[0, 0, 0], PALETTE[3].tolist()]


@pytest.mark.parametrize("map_kind", ["box", "filled_box", "mask"])
def test_areas_are_painted_by_size_and_of_equal_ones_the_lower_id_is_on_top(map_kind: MapKind):
    """supervision's order: `np.flip(np.argsort(area))`, whatever the order of the objects."""
    large, small = (0.0, 0.0, 0.8, 0.8), (0.2, 0.2, 0.7, 0.7)
    whole = Mask.from_array(np.ones((50, 50), bool))
    for boxes, on_top in [((small, large, large), 1), ((large, small, small), 2)]:
        for order in itertools.permutations(range(3)):
            objects = tuple(TrackedObject(k + 1, (Keyframe(0, boxes[k]),)) for k in order)
            trajectory = Trajectory(Canvas(50, 50), 2, 24.0, objects)
            areas = render(trajectory, 50, 50, map_kind)[: 1 if map_kind == "box" else 2]
            assert (areas[:, 25, 25] == PALETTE[on_top]).all()
        masked = tuple(replace(one, mask=whole) for one in objects)
        assert (render(replace(trajectory, objects=masked), 50, 50)[0] == PALETTE[1]).all()


def test_sparse_frames_and_stretching():
    item = TrackedObject(1, (Keyframe(0, (0.0, 0.0, 0.5, 0.5)), Keyframe(4, (0.5, 0.5, 1.0, 1.0))))
    sparse = Trajectory(Canvas(60, 60), 5, 24.0, (item,), sparse_frames=(4,))
    maps = render(sparse, 60, 60, num_frames=9)
    assert maps.any(axis=(1, 2, 3)).nonzero()[0].tolist() == [0, 8]
    np.testing.assert_array_equal(maps[8], render(sparse, 60, 60)[4])


def test_no_objects_is_black():
    assert not render(Trajectory(Canvas(8, 8), 2, 24.0, ()), 16, 16).any()


def test_render_masks():
    masks = np.zeros((2, 3, 4, 4), bool)
    masks[0, 1] = True
    masks[1, :, 0, 0] = True
    maps = render_masks(masks, [(9, 0, 0), (0, 9, 0)])
    assert maps.shape == (3, 4, 4, 3)
    assert maps[1, 0, 0].tolist() == [0, 9, 0]
    assert maps[1, 1, 1].tolist() == [9, 0, 0]
    assert not maps[0, 1, 1].any()
    with pytest.raises(ValueError, match="one color per object"):
        render_masks(masks, [(9, 0, 0)])


@pytest.mark.parametrize(
    "arguments", [{"map_kind": "dot"}, {"compat": "tora"}, {"num_frames": 0}, {"height": 0}]
)
def test_bad_arguments(arguments: dict):
    with pytest.raises(ValueError, match="expected"):
        render(one_object((0.0, 0.0, 1.0, 1.0)), **{"height": 8, "width": 8, **arguments})


def test_filled_boxes_are_the_masks_of_objects_without_any():
    disc = np.hypot(*np.mgrid[-50:50, -100:100]) < 20
    later = Keyframe(4, (0.5, 0.2, 0.9, 0.7))
    with_mask = one_object((0.4, 0.3, 0.6, 0.7), later, mask=Mask.from_array(disc))
    without = one_object((0.4, 0.3, 0.6, 0.7), later)
    filled = render(with_mask, 50, 100, "filled_box")
    np.testing.assert_array_equal(filled[0], render(with_mask, 50, 100)[0])
    np.testing.assert_array_equal(filled[1:], render(without, 50, 100, "mask")[1:])
    assert (filled[4, 11:34, 51:89] == PALETTE[1]).all()


def test_colors_of_an_image_are_those_of_the_objects_in_it():
    """By the mask or the box, without the gray background; elsewhere an object keeps its own."""
    image = np.full((100, 200, 3), 128, np.uint8)
    ring = disc(100, 200, (50, 50), 30) & ~disc(100, 200, (50, 50), 20)
    image[ring] = (200, 40, 40)
    image[30:60, 120:160] = (20, 60, 220)
    objects = (
        TrackedObject(1, (Keyframe(0, (0.1, 0.2, 0.4, 0.8)),), mask=Mask.from_array(ring)),
        TrackedObject(2, (Keyframe(0, (0.55, 0.2, 0.85, 0.7)),)),
        TrackedObject(3, (Keyframe(0, (1.1, 0.2, 1.3, 0.7)),), color="#010203"),
    )
    trajectory = Trajectory(Canvas(200, 100), 2, 24.0, objects)
    first, second, third = image_colors(trajectory, image)
    np.testing.assert_allclose(first, (200, 40, 40), atol=1)
    np.testing.assert_allclose(second, (20, 60, 220), atol=1)
    assert third == (1, 2, 3)
    maps = render(trajectory, 100, 200, "filled_box", image=image)
    assert tuple(maps[0, 50, 75]) == tuple(maps[1, 50, 75]) == first
