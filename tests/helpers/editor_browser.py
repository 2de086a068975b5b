"""The editor in a browser, for tests."""

from __future__ import annotations

import base64
import json
import time

import numpy as np

from flashmotion_jax.trajectory import Trajectory

PROJECT = """(() => {
  const { image, ...rest } = editor.store.project;
  return { ...rest, image: image && image.name };
})()"""
PLACE = """(() => {
  const place = editor.stage.place();
  const bounds = editor.stage.canvas.getBoundingClientRect();
  return [bounds.left + place.left, bounds.top + place.top, place.width, place.height];
})()"""
TRAJECTORY = "import('/static/js/motion.js').then((m) => m.toTrajectory(editor.store.project))"
PREVIEW = """(frame) => {
  editor.store.show({ frame: editor.video.toTimeline(frame) });
  editor.preview.draw();
  const { canvas, context } = editor.preview;
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  let text = "";
  for (let i = 0; i < data.length; i += 4096) {
    text += String.fromCharCode(...data.subarray(i, i + 4096));
  }
  return [canvas.height, canvas.width, btoa(text)];
}"""


class EditorPage:
    """A page with the editor open."""

    def __init__(self, page):
        self.page = page

    @property
    def project(self):
        """The document, with the image's name in place of the image."""
        return self.page.evaluate(PROJECT)

    @property
    def objects(self):
        return self.project["objects"]

    def trajectory(self):
        """What is previewed, exported and generated from."""
        return Trajectory.from_dict(self.page.evaluate(TRAJECTORY))

    def until(self, expression, seconds=240):
        """Waits for an expression of the page; its policy forbids Playwright's own way."""
        for _ in range(int(seconds / 0.05)):
            if value := self.page.evaluate(expression):
                return value
            time.sleep(0.05)
        said = self.page.inner_text("#status")
        raise AssertionError(f"{expression} is not so after {seconds} s; the page says: {said}")

    def at(self, x, y):
        """A point of the canvas, in 0..1, as one of the window."""
        left, top, width, height = self.page.evaluate(PLACE)
        return left + x * width, top + y * height

    def drag(self, start, end):
        mouse = self.page.mouse
        mouse.move(*self.at(*start))
        mouse.down()
        mouse.move(*self.at(*end), steps=4)
        mouse.up()

    def draw_box(self, start, end):
        self.page.click("[data-tool=box]")
        self.drag(start, end)

    def go_to(self, frame):
        self.page.fill("#frame", str(frame))

    def choose(self, button, path):
        """Presses a button that asks for a file, and gives it one."""
        with self.page.expect_file_chooser() as chooser:
            self.page.click(button)
        chooser.value.set_files(path)

    def download(self, button, path):
        with self.page.expect_download() as download:
            self.page.click(button)
        download.value.save_as(path)
        return download.value.suggested_filename

    def export(self, kind, path):
        self.page.click("#export")
        self.page.select_option("#export-format", kind)
        name = self.download("#dialog button[type=submit]", path)
        self.until("!document.querySelector('#dialog').open")
        return name

    def preview(self, frame):
        """The pixels of the preview, uint8 [H, W, 3]."""
        height, width, pixels = self.page.evaluate(PREVIEW, frame)
        rgba = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 4)
        return rgba[..., :3]

    def says(self, text):
        """Waits until the status line holds a text."""
        self.until(f"document.querySelector('#status').textContent.includes({json.dumps(text)})")
