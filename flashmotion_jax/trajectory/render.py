"""Rendering of trajectories to maps, the video of colored masks and boxes that the adapter gets.

Frame 0 shows the masks of the objects; later frames show their boxes, outlined or filled, or the
masks moved and scaled with the boxes. Maps reach the size of the video as its image does.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from flashmotion_jax.config import MapKind, Resize
from flashmotion_jax.media.geometry import Fit, pick_pixels
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import check_video_size
from flashmotion_jax.trajectory.drawing import draw_box, paint_masks, stroke_radius
from flashmotion_jax.trajectory.palette import palette_color
from flashmotion_jax.trajectory.schema import Trajectory


def render(
    trajectory: Trajectory,
    height: int,
    width: int,
    map_kind: MapKind = "box",
    *,
    num_frames: int | None = None,
    compat: Literal["magicmotion"] | None = None,
    image: np.ndarray | None = None,
    resize: Resize = "crop",
) -> np.ndarray:
    """Renders trajectory maps, deterministically.

    Strokes, painting order and default colors are those of MagicMotion. Areas (masks and filled
    boxes) are painted from the largest to the smallest, so that small ones stay visible; of equal
    ones, the lower id is on top. Outlines cover little and are drawn by increasing id, so the
    higher id is on top. The order of `trajectory.objects` does not matter. Boxes are rounded to
    pixels only here.

    Source: supervision `MaskAnnotator.annotate`, which MagicMotion paints masks with, and
    `fn_vis_traj` of MagicMotion's `app.py`, which draws the outlines of objects in their order.

    Args:
      trajectory: Trajectory to render.
      height: Height of the maps, in pixels.
      width: Width of the maps, in pixels.
      map_kind: What frames after the first show: "box" for outlines, as in MagicMotion,
        "filled_box", or "mask" for masks moved and scaled with the boxes.
      num_frames: Number of maps, to which the motion is stretched; None: that of the trajectory.
      compat: "magicmotion" ignores the objects' own colors and uses MagicData's palette.
      image: First frame, uint8 [height, width, 3], to take the colors of the objects from.
      resize: How the canvas reaches the size: see `media.geometry`.

    Returns:
      uint8 [F, height, width, 3].

    Raises:
      UserError: The map kind, the size or the number of frames is invalid, or the maps have more
        pixels than the active limits allow.
      ValueError: `compat` is unknown.
    """
    _check_options(map_kind, compat, num_frames)
    check_video_size(num_frames or trajectory.num_frames, height, width, "maps")
    canvas = trajectory.canvas
    order = sorted(range(len(trajectory.objects)), key=lambda k: trajectory.objects[k].id)
    objects = [trajectory.objects[k] for k in order]
    fit = Fit.of((canvas.height, canvas.width), (height, width), resize)
    boxes_KF4 = fit.boxes(trajectory.boxes(num_frames)[order])
    drawn_F = trajectory.drawn(num_frames)
    if image is not None:
        of_image = image_colors(trajectory, image, resize)
        colors = [of_image[k] for k in order]
    else:
        colors = [palette_color(item.id) if compat else item.rgb for item in objects]
    radius = stroke_radius(height, width)
    maps = np.zeros((len(drawn_F), height, width, 3), np.uint8)
    for frame in np.flatnonzero(drawn_F):
        if frame == 0 or map_kind != "box":
            has_masks = frame == 0 or map_kind == "mask"
            moved = (
                _object_mask(item.mask.to_array(), boxes_F4[0], boxes_F4[frame], fit)
                if item.mask is not None and has_masks
                else _inside(boxes_F4[frame], (height, width))
                for item, boxes_F4 in zip(objects, boxes_KF4, strict=True)
            )
            maps[frame] = paint_masks(moved, colors, (height, width))
            continue
        for box, color in zip(boxes_KF4[:, frame], colors, strict=True):
            x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
            draw_box(maps[frame], (x0, y0, x1, y1), color, radius)
    return maps


def image_colors(
    trajectory: Trajectory, image: np.ndarray, resize: Resize = "crop"
) -> list[tuple[int, int, int]]:
    """The colors of the objects in the first frame of the video.

    They are means over the mask or box of an object, by squared saturation, which leaves the
    background out. An object that is not in the frame keeps the color that it has without it.

    Args:
      trajectory: The objects.
      image: uint8 [H, W, 3].
      resize: How the trajectory's canvas reached the image's size.

    Returns:
      RGB 0..255 of each object.
    """
    canvas = trajectory.canvas
    fit = Fit.of((canvas.height, canvas.width), (image.shape[0], image.shape[1]), resize)
    boxes_K4 = fit.boxes(trajectory.boxes()[:, 0])
    pixels_HWC = image.astype(np.float64)
    weight_HW = np.ptp(pixels_HWC, axis=-1) ** 2 + 1e-3
    colors = []
    for item, box in zip(trajectory.objects, boxes_K4, strict=True):
        mask_HW = None if item.mask is None else item.mask.to_array()
        inside_HW = _object_mask(mask_HW, box, box, fit)
        if not inside_HW.any():
            colors.append(item.rgb)
            continue
        mean = np.average(pixels_HWC[inside_HW], axis=0, weights=weight_HW[inside_HW])
        red, green, blue = np.rint(mean).astype(int).tolist()
        colors.append((red, green, blue))
    return colors


def render_masks(masks_KFHW: np.ndarray, colors: list[tuple[int, int, int]]) -> np.ndarray:
    """Renders maps from masks of every object on every frame.

    Args:
      masks_KFHW: bool.
      colors: RGB, 0..255, one per object.

    Returns:
      uint8 [F, H, W, 3].

    Raises:
      ValueError: The shapes do not match.
    """
    if masks_KFHW.ndim != 4 or masks_KFHW.dtype != bool or len(masks_KFHW) != len(colors):
        raise ValueError(
            f"masks {masks_KFHW.dtype} {list(masks_KFHW.shape)} with {len(colors)} colors, "
            "expected bool [objects, frames, height, width] and one color per object"
        )
    size = masks_KFHW.shape[2:]
    frames = [paint_masks(masks_KFHW[:, f], colors, size) for f in range(masks_KFHW.shape[1])]
    return np.stack(frames)


def _check_options(map_kind: str, compat: str | None, num_frames: int | None) -> None:
    if map_kind not in get_args(MapKind):
        raise UserError(
            f"map_kind={map_kind!r}, expected {', '.join(map(repr, get_args(MapKind)))}"
        )
    if compat not in (None, "magicmotion"):
        raise ValueError(f"compat={compat!r}, expected 'magicmotion' or None")
    if num_frames is not None and num_frames < 1:
        raise UserError(f"{num_frames=}, expected at least 1")


def _object_mask(
    mask_HW: np.ndarray | None,
    first_box: np.ndarray,
    box: np.ndarray,
    fit: Fit,
) -> np.ndarray:
    """The mask of frame 0 moved and scaled from its box to another box, bool [H, W]."""
    (height, width), (top, left) = fit.target, fit.offset
    if mask_HW is None:
        filled_HW = np.zeros((height, width), bool)
        filled_HW[_inside(box, (height, width))] = True
        return filled_HW
    source_height, source_width = mask_HW.shape
    rows = (_carried_back(height, first_box[1::2], box[1::2]) + top) / fit.resized[0]
    columns = (_carried_back(width, first_box[::2], box[::2]) + left) / fit.resized[1]
    # A row and a column of background, which indices outside the mask refer to.
    padded = np.pad(mask_HW, ((0, 1), (0, 1)))
    return padded[np.ix_(pick_pixels(rows, source_height), pick_pixels(columns, source_width))]


def _inside(box: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of the pixels whose centers a box covers."""
    x0, y0, x1, y1 = np.ceil(box - 0.5)
    height, width = size
    top, bottom = np.clip([y0, y1], 0, height).astype(int).tolist()
    left, right = np.clip([x0, x1], 0, width).astype(int).tolist()
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def _carried_back(length: int, first: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Positions on frame 0 of the centers of a line of pixels, if interval `first` became `now`."""
    extent = now[1] - now[0]
    if extent < 1e-3:  # pixels: the object is not visible
        return np.full(length, -np.inf)
    scale = (first[1] - first[0]) / extent
    return (np.arange(length) + 0.5) * scale + (first[0] - now[0] * scale)
