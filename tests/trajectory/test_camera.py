from __future__ import annotations

import json

import numpy as np
import pytest

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import (
    Camera,
    Canvas,
    Keyframe,
    Mask,
    TrackedObject,
    Trajectory,
    add_anchors,
    apply_camera,
    render,
)

CANVAS = Canvas(200, 100)
SIZE = np.array([200, 100, 200, 100])
# Keyframes found for a dense motion may be a tenth of a pixel off, between the first and last.
TOLERANCE = 0.1 / 100


def trajectory(*, num_frames: int = 21) -> Trajectory:
    still = TrackedObject(3, (Keyframe(0, (0.1, 0.2, 0.3, 0.6)),), "still")
    ways = Keyframe(0, (0.5, 0.5, 0.7, 0.7)), Keyframe(num_frames - 1, (0.0, 0.5, 0.2, 0.7))
    objects = still, TrackedObject(5, ways, "moving")
    return Trajectory(CANVAS, num_frames, 24.0, objects)


def path(*points: tuple[float, float] | None, number: int = 1) -> TrackedObject:
    return TrackedObject(number, name="path", points=points)


def seen(*texts: str, before: Trajectory | None = None) -> np.ndarray:
    return apply_camera(before or trajectory(), Camera.parse(texts)).boxes()


@pytest.mark.parametrize(
    "texts",
    [["pan:0.2,0"], ["zoom:1.3"], ["roll:15"], ["dolly:0.5"], ["zoom:2", "roll:-30", "pan:1,1"]],
)
def test_frame_zero_never_changes(texts):
    np.testing.assert_allclose(seen(*texts)[:, 0], trajectory().boxes()[:, 0], atol=1e-12)


def test_pan_adds_to_the_motion_of_objects():
    added = seen("pan:0.25,-0.5") - trajectory().boxes()
    np.testing.assert_allclose(added[:, -1], [[0.25, -0.5] * 2] * 2, atol=1e-12)
    u = np.linspace(0, 1, 21)[:, None]
    eased = (3 * u**2 - 2 * u**3) * ([0.25, -0.5] * 2)
    np.testing.assert_allclose(added, [eased, eased], atol=TOLERANCE)


def test_boxes_leave_the_canvas_with_their_size():
    before, after = trajectory().boxes(), seen("pan:-1.5,0")
    assert after[0, -1, 2] < -1
    np.testing.assert_allclose(np.diff(after[0, -1, ::2]), np.diff(before[0, -1, ::2]))


def test_zoom_scales_about_the_center_of_the_canvas():
    before, after = trajectory().boxes(), seen("zoom:2")
    np.testing.assert_allclose(after[:, -1], 0.5 + 2 * (before[:, -1] - 0.5), atol=1e-12)
    # Halfway in eased time, the scale is the square root.
    np.testing.assert_allclose(np.diff(after[0, 10, ::2]), 0.2 * np.sqrt(2), atol=TOLERANCE)


def test_roll_turns_pixels_and_swaps_the_sides_of_boxes():
    pixels = seen("roll:90")[0, -1] * SIZE
    # 40 x 40 at (40, 40), from the center (-60, -10): clockwise to (10, -60).
    np.testing.assert_allclose(pixels, [90, -30, 130, 10], atol=1e-9)
    wide = TrackedObject(1, (Keyframe(0, (0.4, 0.45, 0.6, 0.55)),))  # 40 x 10 at the center
    before = Trajectory(CANVAS, 5, 24.0, (wide,))
    turned = seen("roll:90", before=before)[0, -1] * SIZE
    np.testing.assert_allclose(turned, [95, 30, 105, 70], atol=1e-9)
    diagonal = seen("roll:-45", before=before)[0, -1] * SIZE
    half = (40 + 10) * np.sqrt(0.5) / 2
    np.testing.assert_allclose(diagonal, [100 - half, 50 - half, 100 + half, 50 + half], atol=1e-9)


def test_dolly_scales_by_depth():
    before, after = trajectory().boxes()[:, -1], seen("dolly:0.5,3=2")[:, -1]
    factors = np.array([[2 / 1.5], [1 / 0.5]])
    np.testing.assert_allclose(after, 0.5 + factors * (before - 0.5), atol=1e-12)
    back = seen("dolly:-1")[:, -1]
    np.testing.assert_allclose(back, 0.5 + 0.5 * (before - 0.5), atol=1e-12)


def test_parts_compose_scale_and_turn_before_the_pan():
    before = trajectory().boxes()[:, -1]
    after = seen("pan:0.1,0.2", "roll:180", "zoom:2", "dolly:0.5")[:, -1]
    expected = 0.5 - 4 * (before[:, [2, 3, 0, 1]] - 0.5) + [0.1, 0.2] * 2
    np.testing.assert_allclose(after, expected, atol=1e-12)


def test_points_move_and_stay_hidden():
    before = Trajectory(CANVAS, 3, 24.0, (path((0.5, 0.25), None, (0.5, 0.5)),))
    after = apply_camera(before, Camera(zoom=2, pan=(0.1, 0)))
    assert after.objects[0].points[1] is None
    np.testing.assert_allclose(after.objects[0].points[0], (0.5, 0.25))
    np.testing.assert_allclose(after.objects[0].points[2], (0.6, 0.5))


def test_static_leaves_objects_and_adds_anchors_beside_them():
    before = trajectory()
    after = apply_camera(before, Camera.parse(["static"]))
    assert after.objects[:2] == before.objects
    anchors = after.boxes()[2:]
    assert 3 <= len(anchors) < 9  # some places are taken
    np.testing.assert_array_equal(anchors, np.repeat(anchors[:, :1], 21, axis=1))
    np.testing.assert_allclose((anchors[:, 0, 2:] - anchors[:, 0, :2]) * [200, 100], 8)
    low = np.maximum(anchors[:, None, 0, :2], before.boxes()[None, :, 0, :2])
    high = np.minimum(anchors[:, None, 0, 2:], before.boxes()[None, :, 0, 2:])
    assert not ((low < high).all(axis=-1)).any()
    assert len({item.rgb for item in after.objects}) == len(after.objects)
    # What is known of the motion does not change: anchors have a keyframe on frame 0 alone.
    np.testing.assert_array_equal(after.known(), before.known())


def test_anchors_move_with_the_camera_alone():
    before = trajectory()
    moved = apply_camera(before, Camera.parse(["pan:0.1,0", "anchors"])).boxes()
    rest = add_anchors(before).boxes()
    shift = moved[:, -1] - rest[:, -1]
    np.testing.assert_allclose(shift, np.tile([0.1, 0] * 2, (len(shift), 1)), atol=1e-12)
    far = Camera(dolly=0.5, background_depth=4, anchors=True)
    sides = np.diff(apply_camera(before, far).boxes()[2:, -1, ::2])
    np.testing.assert_allclose(sides, 0.04 * 4 / 3.5)


def test_anchors_avoid_masks_and_taken_colors():
    mask = np.zeros((100, 200), bool)
    mask[:20, :50] = True  # at the first place of the grid, away from the box
    box = Keyframe(0, (0.9, 0.9, 1.0, 1.0))
    color = "#{:02x}{:02x}{:02x}".format(*TrackedObject(5).rgb)
    objects = TrackedObject(4, (box,), color=color, mask=Mask.from_array(mask))
    after = add_anchors(Trajectory(CANVAS, 2, 24.0, (objects,)))
    assert [item.id for item in after.objects] == [4, *range(6, 14)]
    assert after.boxes()[1:, 0, :2].min(axis=0)[0] > 0  # frame 0 of the others
    assert not ((after.boxes()[1:, 0, 0] < 0.25) & (after.boxes()[1:, 0, 1] < 0.2)).any()


def test_anchors_are_points_beside_points():
    before = Trajectory(CANVAS, 2, 24.0, (path((0.5, 0.5), None),))
    after = add_anchors(before)
    assert len(after.objects) == 9  # the center is taken
    boxes = after.boxes()[:, 0]
    np.testing.assert_array_equal(boxes[:, :2], boxes[:, 2:])
    np.testing.assert_allclose(sorted(set(boxes[1:, 0].round(9))), [1 / 6, 1 / 2, 5 / 6])


def test_nothing_to_do_changes_nothing():
    assert apply_camera(trajectory(), Camera()) == trajectory()
    assert len(add_anchors(Trajectory(CANVAS, 1, 24.0, ())).objects) == 9


def test_maps_show_the_moved_outlines(tmp_path):
    before = Trajectory(CANVAS, 5, 24.0, (trajectory().objects[0],))
    after = apply_camera(before, Camera(pan=(0.25, 0)))
    maps, moved = render(before, 100, 200), render(after, 100, 200)
    np.testing.assert_array_equal(maps[0], moved[0])
    np.testing.assert_array_equal(np.roll(maps[-1], 50, axis=1), moved[-1])
    after.save(tmp_path / "moved.json")
    assert Trajectory.load(tmp_path / "moved.json") == after
    assert json.loads((tmp_path / "moved.json").read_text())["version"] == 1


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["tilt:3"], r"camera 'tilt:3'; expected pan:DX,DY, zoom"),
        (["pan"], r"camera 'pan'; expected pan:DX,DY"),
        (["pan:1"], r"camera 'pan:1'; expected pan:DX,DY"),
        (["pan:a,b"], r"camera 'pan:a,b'; expected"),
        (["pan:nan,0"], r"camera pan nan, expected a number from -10 to 10"),
        (["zoom:0"], r"camera zoom 0, expected a number from 0.01 to 100"),
        (["zoom:-1"], r"camera zoom -1, expected"),
        (["roll:inf"], r"camera roll inf, expected"),
        (["dolly:0.5,3"], r"camera 'dolly:0.5,3'; expected"),
        (["dolly:0.5,3=0"], r"camera depth of object 3 0, expected a number from 0.001"),
        (["dolly:0.5,9=2"], r"camera depth of object 9, expected one of \[3, 5\]"),
        (["dolly:1"], r"camera dolly 1 reaches object 3 'still' at depth 1"),
        (["dolly:2,3=3,5=1.5"], r"reaches object 5 'moving' at depth 1.5"),
        (["zoom:2", "zoom:3"], r"camera zoom is given twice"),
        (["static", "pan:1,0"], r"camera static with pan; leave static out"),
        (["static:1"], r"camera 'static:1'; expected"),
        ([""], r"camera ''; expected"),
        (["zoom:100"], r"the camera moves object 3 'still' to \[.*\] on frame \d+, expected -10"),
    ],
)
def test_bad_cameras_are_one_clear_line(texts, message):
    with pytest.raises(UserError, match=message) as error:
        apply_camera(trajectory(), Camera.parse(texts))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_trajectories_that_a_camera_cannot_move():
    with pytest.raises(UserError, match="one frame; expected at least 2"):
        apply_camera(
            Trajectory(CANVAS, 1, 24.0, (path((0.5, 0.5)),)),
            Camera(zoom=2),
        )
    with pytest.raises(UserError, match="a point, out of the canvas on all frames that show it"):
        apply_camera(Trajectory(CANVAS, 2, 24.0, (path(None, (0.5, 0.5)),)), Camera(pan=(2, 0)))
    whole = TrackedObject(1, (Keyframe(0, (0, 0, 1, 1)),))
    with pytest.raises(UserError, match="no place for anchors"):
        add_anchors(Trajectory(CANVAS, 2, 24.0, (whole,)))
    last = TrackedObject(9999, (Keyframe(0, (0, 0, 0.1, 0.1)),))
    with pytest.raises(UserError, match="anchors need ids above 9999, expected at most 9999"):
        add_anchors(Trajectory(CANVAS, 2, 24.0, (last,)))
