"""The page's renderer against the Python one, on random trajectories, pixel for pixel."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from flashmotion_jax.trajectory import (
    EASINGS,
    Canvas,
    Keyframe,
    Mask,
    TrackedObject,
    Trajectory,
    palette_color,
    render,
)
from flashmotion_jax.trajectory.keyframes import keyframes_from_boxes

SIGMA = 0.05
RENDER = """async ([trajectory, wanted]) => {
  const { Renderer } = await import("/static/js/render.js");
  const renderer = new Renderer(trajectory, wanted);
  let text = "";
  for (let frame = 0; frame < wanted.frames; frame += 1) {
    const pixels = renderer.render(frame);
    for (let i = 0; i < pixels.length; i += 4096) {
      text += String.fromCharCode(...pixels.subarray(i, i + 4096));
    }
  }
  return btoa(text);
}"""


def random_box(rng):
    # Some of them lie on whole or half pixels, where rounding decides.
    edges = rng.uniform(-0.4, 1.4, 4) if rng.random() < 0.6 else rng.integers(-40, 140, 4) / 100
    x0, x1, y0, y1 = *sorted(edges[:2].tolist()), *sorted(edges[2:].tolist())
    return (x0, y0, x1, y1) if rng.random() < 0.9 else (x0, y0, x0, y1)


def random_trajectory(rng):
    num_frames = int(rng.integers(1, 20))
    canvas = Canvas(*rng.integers(20, 200, 2).tolist())
    objects = []
    for number in rng.permutation(np.arange(1, 6))[: rng.integers(1, 5)].tolist():
        count = int(rng.integers(1, min(5, num_frames) + 1))
        frames = sorted(rng.choice(num_frames, count, replace=False).tolist())
        eases = rng.choice(list(EASINGS), count).tolist()
        keys = [Keyframe(f, random_box(rng), e) for f, e in zip(frames, eases, strict=True)]
        mask = None
        if rng.random() < 0.5:
            pixels = rng.random((canvas.height, canvas.width)) < 0.3
            pixels[rng.integers(canvas.height), rng.integers(canvas.width)] = True
            mask = Mask.from_array(pixels)
        color = None if rng.random() < 0.7 else f"#{number}23456"
        if rng.random() < 0.2:
            points = [
                random_box(rng)[:2] if rng.random() < 0.8 else None for _ in range(num_frames)
            ]
            points[0] = (0.5, 0.25)
            objects.append(TrackedObject(number, color=color, points=tuple(points)))
            continue
        objects.append(TrackedObject(number, tuple(keys), color=color, mask=mask))
    sparse = None
    if rng.random() < 0.2:
        sparse = tuple(np.flatnonzero(rng.random(num_frames) < 0.4).tolist())
    return Trajectory(canvas, num_frames, 24.0, tuple(objects), sparse)


def rendered_by_the_page(page, trajectory, height, width, frames, kind, resize):
    wanted = {
        "height": height,
        "width": width,
        "frames": frames,
        "mapKind": kind,
        "resize": resize,
        "pointSigma": SIGMA,
    }
    pixels = base64.b64decode(page.evaluate(RENDER, [trajectory.to_dict(), wanted]))
    rgba = np.frombuffer(pixels, np.uint8).reshape(frames, height, width, 4)
    assert (rgba[..., 3] == 255).all()
    return rgba[..., :3]


def test_the_page_renders_what_python_renders(open_page, address):
    page = open_page(address)
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (48, 96), (33, 70), (210, 320), (320, 230)]
    for trial in range(60):
        trajectory = random_trajectory(rng)
        height, width = sizes[trial % 3 if trial < 52 else 3 + trial % 2]
        frames = trajectory.num_frames if trial % 2 else int(rng.integers(1, 14))
        kind = ("box", "filled_box", "mask", "points")[trial % 4]
        resize = "stretch" if trial % 4 == 1 else "crop"
        ours = rendered_by_the_page(page, trajectory, height, width, frames, kind, resize)
        theirs = render(
            trajectory, height, width, kind, num_frames=frames, resize=resize, point_sigma=SIGMA
        )
        np.testing.assert_array_equal(ours, theirs, f"trial {trial}, {kind}, {resize}")


def test_the_page_has_the_same_colors(open_page, address):
    find = """async (count) => {
      const { paletteColor } = await import("/static/js/palette.js");
      return Array.from({ length: count }, (_, k) => paletteColor(k + 1));
    }"""
    colors = open_page(address).evaluate(find, 9_999)
    assert [tuple(color) for color in colors] == [palette_color(id) for id in range(1, 10_000)]


def test_the_page_finds_the_same_keyframes(open_page, address):
    page = open_page(address)
    rng = np.random.default_rng(1)
    find = """async ([frames, boxes, tolerance]) => {
      const { keyframesFromBoxes } = await import("/static/js/motion.js");
      return keyframesFromBoxes(frames, boxes, tolerance);
    }"""
    for count in (1, 2, 30, 121):
        boxes = np.cumsum(rng.normal(0, 0.01, (count, 4)), axis=0)
        frames = np.arange(count)
        theirs = keyframes_from_boxes(frames, boxes, np.full(4, 0.02))
        found = page.evaluate(find, [frames.tolist(), boxes.tolist(), [0.02] * 4])
        ours = tuple(Keyframe(key["frame"], tuple(key["box"]), key["ease"]) for key in found)
        assert ours == theirs


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (40, 60)])
def test_masks_keep_their_run_lengths(open_page, address, shape):
    page = open_page(address)
    encode = """async ([pixels, height, width]) => {
      const { boxOf, maskOf, pixelsOf } = await import("/static/js/masks.js");
      const mask = maskOf(pixels, height, width);
      return [mask, [...pixelsOf(mask)], boxOf(mask)];
    }"""
    pixels = np.random.default_rng(2).random(shape) < 0.4
    pixels[0, 0] = True
    mask, decoded, box = page.evaluate(encode, [pixels.astype(int).ravel().tolist(), *shape])
    theirs = Mask.from_array(pixels)
    assert (tuple(mask["size"]), tuple(mask["counts"])) == (theirs.size, theirs.counts)
    assert decoded == pixels.astype(int).ravel().tolist()
    assert tuple(box) == theirs.box()
