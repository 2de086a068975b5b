"""Points in the page: set, dragged, imported from tracks, and warned of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flashmotion_jax import SamplingConfig
from flashmotion_jax.trajectory import render
from helpers.editor_browser import EditorPage

IMPORT = """(text) => editor.exchange.importFiles(
  [new File([text], "splines.json")], { map_kind: "points" },
)"""
SIGMA = SamplingConfig().point_sigma


@pytest.fixture
def editor(open_page, address):
    return EditorPage(open_page(address))


def test_a_point_is_set_and_dragged_to_where_it_goes(editor):
    page = editor.page
    page.click("[data-tool=point]")
    editor.drag((0.2, 0.3), (0.3, 0.4))  # pressed, and moved to its place
    editor.go_to(8)
    editor.drag((0.3, 0.4), (0.7, 0.8))
    (point,) = editor.trajectory().objects
    boxes = np.array([key.box for key in point.keyframes])
    assert [key.frame for key in point.keyframes] == [0, 8]
    np.testing.assert_array_equal(boxes[:, :2], boxes[:, 2:])  # it has no extent
    np.testing.assert_allclose(boxes[:, :2], [(0.3, 0.4), (0.7, 0.8)], atol=0.01)
    # The model of this page has maps of boxes.
    editor.until("document.querySelector('#warnings').textContent.includes('is a point')")
    page.select_option("#preview-kind", "points")
    editor.until("!document.querySelector('#warnings').textContent.includes('is a point')")
    first = editor.preview(0)
    maps = render(editor.trajectory(), *first.shape[:2], "points", num_frames=9, point_sigma=SIGMA)
    assert maps[0].any()
    for frame in range(9):
        np.testing.assert_array_equal(editor.preview(frame), maps[frame])


def test_tracks_are_imported_as_points(editor):
    splines = [[{"x": 8 * i, "y": 10 + i * i} for i in range(9)], [{"x": 5, "y": 5}] * 9]
    editor.page.evaluate(IMPORT, json.dumps(splines))
    moving, still = editor.trajectory().objects
    boxes = editor.trajectory().boxes()
    height, width = (editor.project["canvas"][side] for side in ("height", "width"))
    expected = np.array([[point["x"] / width, point["y"] / height] for point in splines[0]])
    np.testing.assert_allclose(boxes[0, :, :2], expected)
    np.testing.assert_array_equal(boxes[..., :2], boxes[..., 2:])
    assert len(still.keyframes) == len(moving.keyframes) == 9
