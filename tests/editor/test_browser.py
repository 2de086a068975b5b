"""The page in Debian's Chromium, from a drawing to a video."""

from __future__ import annotations

import json
import socket
import zipfile

import numpy as np
import pytest
from PIL import Image

from examples.own_trajectory import IMAGE
from flashmotion_jax import read_video
from flashmotion_jax.trajectory import Trajectory, render
from helpers.editor_browser import EditorPage
from helpers.editor_server import serving
from helpers.editor_slow import Slow

ALL = "editor.store.project.objects"


@pytest.fixture
def editor(open_page, address):
    return EditorPage(open_page(address))


def assert_preview_equals_python(editor, frames=9):
    trajectory = editor.trajectory()
    first = editor.preview(0)
    maps = render(trajectory, *first.shape[:2], "filled_box", num_frames=frames)
    for frame in range(frames):
        np.testing.assert_array_equal(editor.preview(frame), maps[frame], f"frame {frame}")


def test_from_a_drawing_to_a_video(editor, picture, tmp_path):
    page = editor.page
    editor.choose("#load-image", picture)
    editor.until("editor.store.project.image?.name === 'picture.png'")
    assert editor.project["canvas"] == {"width": 120, "height": 90}
    editor.draw_box((0.2, 0.3), (0.45, 0.6))
    editor.draw_box((0.6, 0.55), (0.8, 0.85))
    editor.go_to(4)
    editor.drag((0.7, 0.7), (0.5, 0.3))
    editor.go_to(8)
    editor.drag((0.5, 0.3), (0.2, 0.4))
    first, second = editor.objects
    assert [key["frame"] for key in second["keyframes"]] == [0, 4, 8]
    assert len(first["keyframes"]) == 1

    page.focus("#stage")
    page.keyboard.press("Control+z")
    assert len(editor.objects[1]["keyframes"]) == 2
    for _ in range(9):
        page.keyboard.press("Control+z")
    assert editor.project["objects"] == [] and editor.project["image"] is None
    for _ in range(9):
        page.keyboard.press("Control+Shift+z")
    assert editor.objects == [first, second]

    assert_preview_equals_python(editor)
    name = editor.download("#save-project", tmp_path / "saved.json")
    assert name == "picture.flashmotion.json"
    before = editor.project
    editor.until("!editor.files.unsaved")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert editor.project == before  # autosave
    page.click("#more")
    page.click("#new-project")
    assert editor.objects == []
    editor.choose("#open-project", tmp_path / "saved.json")
    editor.until(f"{ALL}.length === 2")
    assert editor.project == before
    assert_preview_equals_python(editor)

    assert editor.export("trajectory", tmp_path / "trajectory.json") == "trajectory.json"
    assert Trajectory.load(tmp_path / "trajectory.json") == editor.trajectory()
    generate_and_restore(editor, tmp_path)


def generate_and_restore(editor, tmp_path):
    page = editor.page
    page.click("#tab-generate")
    page.fill("#setting-prompt", "a blue square moves to the left")
    page.fill("#setting-seed", "3")
    page.press("#setting-seed", "Tab")
    wanted = editor.project
    page.click("#generate")
    page.wait_for_selector("#result[open]", timeout=300_000)
    editor.until("document.querySelector('#result canvas[data-frame]')")
    assert "object 2" in page.inner_text("#result table")
    editor.download("#result a:has-text('Download Video')", tmp_path / "video.mp4")
    frames, fps = read_video(tmp_path / "video.mp4")
    assert frames.shape == (9, 64, 64, 3) and fps == 8
    page.keyboard.press("Escape")
    page.click("#more")
    page.click("#new-project")
    page.click("#tab-history")
    page.click("#history >> text=Restore")
    editor.until(f"{ALL}.length === 2")
    assert editor.project == wanted


def test_every_tool_leads_to_a_map_that_python_renders(editor, picture):
    page = editor.page
    editor.choose("#load-image", picture)
    editor.until("editor.store.project.image")
    # A click on the disc, and a box around the square.
    page.keyboard.press("w")
    page.mouse.click(*editor.at(1 / 3, 4 / 9))
    editor.until(f"{ALL}.length === 1")
    disc = editor.objects[0]
    np.testing.assert_allclose(
        disc["keyframes"][0]["box"], (26 / 120, 26 / 90, 55 / 120, 55 / 90), atol=0.02
    )
    editor.drag((0.52, 0.48), (0.87, 0.9))
    editor.until(f"{ALL}.length === 2")
    square = editor.objects[1]["keyframes"][0]["box"]
    np.testing.assert_allclose(square, (70 / 120, 50 / 90, 95 / 120, 75 / 90), atol=0.03)
    # A painted mask gives its box by itself; a part of it is erased again.
    page.focus("#stage")
    page.keyboard.press("v")
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    editor.drag((0.1, 0.1), (0.3, 0.1))
    editor.until(f"{ALL}.length === 3")
    painted = editor.objects[2]
    page.keyboard.press("e")
    editor.drag((0.1, 0.1), (0.15, 0.1))
    erased = editor.objects[2]
    assert erased["keyframes"][0]["box"][0] > painted["keyframes"][0]["box"][0]
    # Recorded in real time: nine frames at 8 a second.
    page.keyboard.press("v")
    page.keyboard.press("r")
    page.mouse.move(*editor.at(0.25, 0.1))
    page.mouse.down()
    page.mouse.move(*editor.at(0.4, 0.3), steps=3)
    page.mouse.move(*editor.at(0.8, 0.4), steps=3)
    editor.until("!editor.store.view.recording")
    page.mouse.up()
    recorded = editor.objects[2]
    assert recorded["keyframes"][-1]["frame"] == 8 and len(recorded["keyframes"]) > 1
    # The square flies along a curve, and the camera goes closer while it does.
    page.locator(".object .pick", has_text="object 2").click()
    for frame, end in ((4, (0.3, 0.2)), (8, (0.8, 0.2))):
        editor.go_to(frame)
        box = page.evaluate(
            "import('/static/js/geometry.js').then((g) => g.visibleBox("
            "editor.store.project, editor.store.project.objects[1], editor.store.view.frame))"
        )
        editor.drag(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), end)
    page.select_option("#object-path", "spline")
    page.select_option("#ease", "smooth")
    page.click("#add-camera")
    page.click("text=Zoom in")
    assert_preview_equals_python(editor)
    # Masks that move with their boxes, and outlines, are equal too.
    for kind in ("mask", "box"):
        page.select_option("#preview-kind", kind)
        maps = render(editor.trajectory(), 64, 64, kind, num_frames=9)
        for frame in (0, 3, 8):
            np.testing.assert_array_equal(editor.preview(frame), maps[frame])


def test_objects_are_arranged_by_buttons_and_keys(editor):
    page = editor.page
    editor.draw_box((0.1, 0.1), (0.3, 0.3))
    editor.draw_box((0.5, 0.5), (0.8, 0.8))
    first, second = editor.objects
    page.focus("#stage")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    moved = editor.objects[1]["keyframes"][0]["box"]
    change = np.subtract(moved, second["keyframes"][0]["box"])
    np.testing.assert_allclose(change, (0.005, -0.05, 0.005, -0.05))
    page.keyboard.press("[")
    order = editor.objects
    assert [item["uid"] for item in order] == [second["uid"], first["uid"]]
    # Colors stay with the objects when their ids change.
    maps = render(editor.trajectory(), 64, 64)
    assert tuple(maps[0][10, 10]) == (128, 32, 32)
    page.keyboard.press("Control+d")
    assert len(editor.objects) == 3 and editor.objects[2]["name"] == "object 2 copy"
    page.click("summary:has-text('Mirror')")
    box = editor.objects[2]["keyframes"][0]["box"]
    page.click("text=Mirror ⇋")
    mirrored = editor.objects[2]["keyframes"][0]["box"]
    np.testing.assert_allclose(mirrored, (1 - box[2], box[1], 1 - box[0], box[3]))
    page.click("[aria-label='Leave to the right']")
    assert editor.objects[2]["keyframes"][-1]["box"][0] > 1
    editor.until("document.querySelector('#warnings').textContent.includes('outside the image')")
    # Speed: the last keyframe comes earlier; the arrow keys move it in time.
    page.locator(".tl-row.selected .key").last.focus()
    page.keyboard.press("Shift+ArrowLeft")
    assert editor.objects[2]["keyframes"][-1]["frame"] == 3
    editor.until("document.activeElement.ariaLabel?.includes('keyframe at frame 3')")
    page.focus("#stage")
    page.keyboard.press("h")
    assert len(editor.trajectory().objects) == 2  # hidden ones are not in the maps
    page.keyboard.press("h")
    page.keyboard.press("l")
    locked = editor.objects
    page.keyboard.press("ArrowRight")
    editor.says("is locked")
    assert editor.objects == locked
    page.keyboard.press("l")
    page.click("text=+ Anchor")
    editor.go_to(5)
    editor.drag((0.5, 0.5), (0.6, 0.6))
    (key,) = editor.objects[3]["keyframes"]
    assert key["frame"] == 0
    assert_preview_equals_python(editor)


def test_sessions_do_not_disturb_each_other(editor, open_page, address):
    page = editor.page
    other = EditorPage(open_page(address, context=page.context))
    stranger = EditorPage(open_page(address))
    editor.draw_box((0.1, 0.1), (0.4, 0.4))
    assert other.objects == [] and stranger.objects == []
    other.draw_box((0.5, 0.5), (0.7, 0.7))
    kept = editor.objects, other.objects
    for one, objects in zip((editor, other), kept, strict=True):
        one.until("!editor.files.unsaved")
        one.page.reload()
        one.page.wait_for_selector("body[data-ready]")
        assert one.objects == objects
    sessions = {one.page.evaluate("editor.session") for one in (editor, other, stranger)}
    assert len(sessions) == 3


def test_projects_with_old_names_are_still_opened(editor, tmp_path):
    page = editor.page
    editor.draw_box((0.1, 0.1), (0.3, 0.3))
    page.fill("#object-color", "#12ab34")
    page.select_option("#preview-kind", "mask")
    assert editor.objects[0]["color"] == "#12ab34"
    editor.download("#save-project", tmp_path / "saved.json")
    before = editor.project
    data = json.loads((tmp_path / "saved.json").read_text())
    data["objects"][0]["colour"] = data["objects"][0].pop("color")
    names = {"num_inference_steps": "steps", "num_frames": "frames", "map_kind": "kind"}
    settings = data["settings"]
    data["settings"] = {names.get(name, name): value for name, value in settings.items()}
    (tmp_path / "old.json").write_text(json.dumps(data))
    page.click("#more")
    page.click("#new-project")
    editor.choose("#open-project", tmp_path / "old.json")
    editor.until(f"{ALL}.length === 1")
    assert editor.project == before
    # The autosave of an older editor.
    editor.until("!editor.files.unsaved")
    page.evaluate("""async () => {
      const { color, ...object } = editor.store.project.objects[0];
      const project = { ...editor.store.project, objects: [{ ...object, colour: color }] };
      editor.files.saveNow = () => {};
      await (await import("/static/js/autosave.js")).save(editor.session, project);
    }""")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert editor.project == before


def test_files_that_are_large_broken_or_malicious(editor, tmp_path):
    page = editor.page
    noise = np.random.default_rng(0).integers(0, 256, (216, 384, 3), np.uint8)
    Image.fromarray(noise).resize((3840, 2160), 0).save(tmp_path / "4k.jpg")
    editor.choose("#load-image", tmp_path / "4k.jpg")
    editor.until("editor.store.project.canvas.width === 3840")
    before = editor.project
    (tmp_path / "broken.png").write_bytes((tmp_path / "4k.jpg").read_bytes()[:2000])
    editor.choose("#load-image", tmp_path / "broken.png")
    editor.says("broken.png is not a readable image")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(200 * 2**20)
    editor.choose("#load-image", tmp_path / "huge.png")
    editor.says("huge.png has 200 MB, more than 96 MB: use a smaller file.")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../evil.json", "{}")
    page.click("#import")
    editor.choose("#import-files", tmp_path / "evil.zip")
    editor.says("leaves its folder")
    page.keyboard.press("Escape")
    (tmp_path / "broken.json").write_text(json.dumps({"format": "flashmotion-project"}))
    editor.choose("#open-project", tmp_path / "broken.json")
    editor.says("version undefined")
    assert editor.project == before


def test_a_server_that_restarts_during_a_job(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr("flashmotion_jax.editor.worker._STOP_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    slow = Slow()
    with serving(tmp_path, slow, port) as url:
        editor = EditorPage(open_page(url))
        page = editor.page
        editor.draw_box((0.2, 0.2), (0.5, 0.6))
        page.click("#tab-generate")
        page.click("#generate")
        page.wait_for_selector("#queue .job[data-state=running] progress")
        slow.step.release(1)
    editor.says("does not respond")
    slow.step.release(1000)
    again = Slow()
    again.step.release(100)
    with serving(tmp_path, again, port):
        page.click("#tab-history")
        page.wait_for_selector("#history .job[data-state=interrupted]")
        page.click("text=Run again")
        page.wait_for_selector("#history .job[data-state=done]")
        page.close()


def test_the_shipped_model_follows_what_is_drawn(open_page, tmp_path):
    """The end of the motion is measured as well, because colors of Sprites are exact."""
    with serving(tmp_path / "history") as address:
        editor = EditorPage(open_page(address))
        page = editor.page
        assert "colored shapes only" in page.inner_text("#notice")
        assert page.locator("#generate").is_disabled()  # without an image
        editor.choose("#load-image", IMAGE)
        editor.until("editor.store.project.image?.name === 'sprites.png'")
        editor.until("document.querySelector('#warnings').textContent.includes('no object')")
        editor.draw_box((0.05, 0.15), (0.43, 0.49))
        editor.draw_box((0.64, 0.19), (0.99, 0.54))
        editor.go_to(16)
        editor.drag((0.8, 0.35), (0.8, 0.75))
        page.click("#tab-generate")
        prompt = "a dotted yellow triangle stands still, a blue circle moves down"
        page.fill("#setting-prompt", prompt)
        page.click("#generate")
        page.wait_for_selector("#result[open]", timeout=300_000)
        editor.until("document.querySelector('#result canvas[data-frame]')")
        assert "mean IoU" in page.inner_text("#result table")
        job = page.request.get(f"{address}/api/jobs").json()["jobs"][-1]
        boxes = page.request.get(f"{address}/api/jobs/{job['id']}/boxes").json()
        assert [found["color"] for found in boxes["objects"]] == ["yellow", "blue"]
        # In the last frame; where the circle was at first, it would have nothing of its box.
        assert all(found["iou"][-1] > 0.25 for found in boxes["objects"])
