"""Camera presets in the page, which move what `trajectory.apply_camera` moves."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.trajectory import Camera, apply_camera, render
from helpers.editor_browser import EditorPage


@pytest.fixture
def editor(open_page, address):
    page = EditorPage(open_page(address))
    page.draw_box((0.2, 0.3), (0.4, 0.6))
    page.go_to(8)
    page.drag((0.3, 0.45), (0.5, 0.6))
    return page


def apply(editor, **numbers):
    editor.page.click("#camera-presets")
    for name, value in numbers.items():
        editor.page.fill(f"#camera-{name}", str(value))
    editor.page.click("#dialog button[type=submit]")


def closed(editor):
    editor.until("!document.querySelector('#dialog').open")


def test_a_preset_moves_what_the_command_line_moves(editor):
    before = editor.trajectory()
    apply(editor, right=20, zoom=130, roll=10)
    closed(editor)
    after = editor.trajectory()
    expected = apply_camera(before, Camera.parse(["pan:0.2,0", "zoom:1.3", "roll:10", "anchors"]))
    assert len(after.objects) > 5
    np.testing.assert_allclose(after.boxes(), expected.boxes(), atol=1e-9)
    maps = render(expected, *editor.preview(0).shape[:2], "filled_box", num_frames=9)
    for frame in (0, 4, 8):
        np.testing.assert_array_equal(editor.preview(frame), maps[frame])
    editor.page.click("#undo")
    assert editor.trajectory() == before


def test_a_camera_at_rest_adds_anchors_and_changes_no_object(editor):
    before = editor.trajectory()
    apply(editor)
    closed(editor)
    assert editor.trajectory() == apply_camera(before, Camera.parse(["static"]))
    assert all(anchor["anchored"] for anchor in editor.objects[1:])


def test_objects_that_ignore_the_camera_stay_and_the_yellow_frame_becomes_keyframes(editor):
    editor.page.click("#add-camera")
    editor.page.click("[aria-label='The camera moves closer']")
    editor.draw_box((0.6, 0.1), (0.8, 0.2))
    editor.page.check("#object-pinned")
    before = editor.trajectory()
    apply(editor, right=-30)
    closed(editor)
    assert editor.project["camera"] is None
    moved, pinned = editor.trajectory().boxes()[:2]
    np.testing.assert_array_equal(pinned, before.boxes()[1])
    expected = apply_camera(before, Camera(pan=(-0.3, 0.0))).boxes()[0]
    np.testing.assert_allclose(moved, expected, atol=1e-9)


def test_a_bad_preset_is_one_line_and_changes_nothing(editor):
    before = editor.trajectory()
    apply(editor, dolly=100)
    editor.says("camera dolly 1 reaches object 1")
    # It is in front of the dialog, which stays open.
    editor.until("getComputedStyle(document.querySelector('#status')).opacity === '1'")
    assert editor.page.evaluate("document.querySelector('#dialog').open")
    box = editor.page.locator("#status").bounding_box()
    clip = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 3, "width": 2, "height": 2}
    shot = Image.open(io.BytesIO(editor.page.screenshot(clip=clip))).convert("RGB")
    assert shot.getpixel((0, 0)) == (0xFF, 0xD9, 0xD4)
    assert editor.trajectory() == before
