"""Takes the screenshots of the editor in docs/.

PYTHONPATH=tests python tools/editor_screenshots.py [CHECKPOINT]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import skimage.data
from editor.conftest import ARGUMENTS, CHROMIUM
from PIL import Image
from playwright.sync_api import sync_playwright

from flashmotion_jax.editor.generator import Generator
from helpers.editor_server import serving

DOCS = Path(__file__).parents[1] / "docs"
SIZES = {1280: 800, 390: 844}
OBJECTS = [
    {
        "id": 1,
        "name": "head",
        "keyframes": [
            {"frame": 0, "box": [0.28, 0.03, 0.56, 0.62], "ease": "smooth"},
            {"frame": 72, "box": [0.08, 0.1, 0.36, 0.69], "ease": "hold"},
        ],
    },
    {
        "id": 2,
        "name": "shuttle",
        "keyframes": [
            {"frame": 0, "box": [0.72, 0.05, 0.97, 0.85], "ease": "in"},
            {"frame": 48, "box": [0.56, -0.05, 0.8, 0.7], "ease": "linear"},
            {"frame": 88, "box": [0.72, -0.3, 0.92, 0.3], "ease": "out"},
            {"frame": 112, "box": [0.96, -0.6, 1.1, -0.15]},
        ],
    },
]
SHOW = """async (trajectory) => {
  await editor.exchange.importFiles([new File([JSON.stringify(trajectory)], "t.json")]);
  editor.store.change("name", (draft) => {
    draft.name = "Lift-off";
    draft.objects[1].path = "spline";
  });
  editor.store.show({ frame: 52, selected: editor.store.project.objects[1].uid });
  document.querySelector("#status").classList.remove("shown");
  document.activeElement.blur();
}"""


def main() -> None:
    """Takes a screenshot of the page in each width."""
    with tempfile.TemporaryDirectory() as scratch:
        photo = Path(scratch) / "photo.png"
        Image.fromarray(skimage.data.astronaut()[:320]).save(photo)
        model = Generator(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
        with serving(Path(scratch), model, image=photo) as url, sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            for width, height in SIZES.items():
                page = chromium.new_page(viewport={"width": width, "height": height})
                page.goto(url)
                page.wait_for_selector("body[data-ready]")
                canvas = {"width": 512, "height": 320}
                facts = {"version": 1, "canvas": canvas, "num_frames": 121, "fps": 24}
                page.evaluate(SHOW, json.loads(json.dumps({**facts, "objects": OBJECTS})))
                page.select_option("#preview-mode", "over")
                page.wait_for_timeout(1500)
                path = DOCS / f"editor-{width}.png"
                page.screenshot(path=path, full_page=width < 900)
                Image.open(path).convert("RGB").save(path, optimize=True)
                print(f"wrote {path}")
            chromium.close()


if __name__ == "__main__":
    main()
