"""Rendering of trajectories to maps, the video of colored masks and boxes that the adapter gets.

Frame 0 shows the masks of the objects; later frames show their boxes, outlined or filled, the masks
moved and scaled with the boxes, or Gaussians at the centers of the boxes. Maps reach the size of
the video as its image does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import compress
from typing import Literal, get_args

import numpy as np

from flashmotion_jax.config import MapKind, Resize, SamplingConfig
from flashmotion_jax.media.geometry import Fit, pick_pixels
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import check_video_size
from flashmotion_jax.trajectory.drawing import draw_box, draw_point, paint_masks, stroke_radius
from flashmotion_jax.trajectory.masks import Mask
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
    point_sigma: float = SamplingConfig.point_sigma,
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
        "filled_box", "mask" for masks moved and scaled with the boxes, or "points" for Gaussians at
        the centers of the boxes, which vanish where a center is hidden or outside the map. An
        object without extent is a Gaussian on frame 0, too.
      num_frames: Number of maps, to which the motion is stretched; None: that of the trajectory.
      compat: "magicmotion" ignores the objects' own colors and uses MagicData's palette.
      image: First frame, uint8 [height, width, 3], to take the colors of the objects from.
      resize: How the canvas reaches the size: see `media.geometry`.
      point_sigma: Standard deviation of points, as a fraction of the shorter side.

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
    shown_KF = trajectory.shown(num_frames)[order]
    if image is not None:
        of_image = image_colors(trajectory, image, resize)
        colors = [of_image[k] for k in order]
    else:
        colors = [palette_color(item.id) if compat else item.rgb for item in objects]
    first, later = _PAINTERS[map_kind]
    maps = np.zeros((len(drawn_F), height, width, 3), np.uint8)
    for frame in np.flatnonzero(drawn_F):
        shown = np.flatnonzero(shown_KF[:, frame])
        paint = later if frame else first
        paint(
            maps[frame],
            _Shown(
                fit,
                [objects[k].mask for k in shown],
                boxes_KF4[shown, 0],
                boxes_KF4[shown, frame],
                [colors[k] for k in shown],
                point_sigma * min(height, width),
            ),
        )
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
    # A point has the color around it.
    reach = SamplingConfig.point_sigma * min(image.shape[:2])
    boxes_K4 = boxes_K4 + np.outer(~_has_extent(boxes_K4), [-reach, -reach, reach, reach])
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


@dataclass(frozen=True, eq=False)
class _Shown:
    """The objects of a frame, in the order of their ids.

    Attributes:
      fit: How the canvas reaches the size of the maps.
      masks: On frame 0; None: the filled box.
      first_K4: Boxes on frame 0, in pixels of the maps.
      boxes_K4: Boxes on this frame.
      colors: RGB, 0..255.
      sigma: Standard deviation of points, in pixels.
    """

    fit: Fit
    masks: list[Mask | None]
    first_K4: np.ndarray
    boxes_K4: np.ndarray
    colors: list[tuple[int, int, int]]
    sigma: float


def _draw_outlines(frame_HW3: np.ndarray, shown: _Shown) -> None:
    radius = stroke_radius(*frame_HW3.shape[:2])
    for box, color in zip(shown.boxes_K4, shown.colors, strict=True):
        x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
        draw_box(frame_HW3, (x0, y0, x1, y1), color, radius)


def _fill_boxes(frame_HW3: np.ndarray, shown: _Shown) -> None:
    areas = (_inside(box, shown.fit.target) for box in shown.boxes_K4)
    frame_HW3[:] = paint_masks(areas, shown.colors, shown.fit.target)


def _fill_masks(frame_HW3: np.ndarray, shown: _Shown) -> None:
    areas = (
        _inside(box, shown.fit.target)
        if mask is None
        else _object_mask(mask.to_array(), first, box, shown.fit)
        for mask, first, box in zip(shown.masks, shown.first_K4, shown.boxes_K4, strict=True)
    )
    frame_HW3[:] = paint_masks(areas, shown.colors, shown.fit.target)


def _draw_points(frame_HW3: np.ndarray, shown: _Shown) -> None:
    for (x0, y0, x1, y1), color in zip(shown.boxes_K4.tolist(), shown.colors, strict=True):
        draw_point(frame_HW3, ((x0 + x1) / 2, (y0 + y1) / 2), color, shown.sigma)


def _fill_masks_or_draw_points(frame_HW3: np.ndarray, shown: _Shown) -> None:
    """Masks where objects have an extent, points where they have none."""
    _fill_masks(frame_HW3, shown)
    flat = ~_has_extent(shown.boxes_K4)
    colors = list(compress(shown.colors, flat))
    _draw_points(frame_HW3, replace(shown, boxes_K4=shown.boxes_K4[flat], colors=colors))


#: Map kind -> what draws frame 0, and what draws later frames.
_PAINTERS: dict[MapKind, tuple[Callable[[np.ndarray, _Shown], None], ...]] = {
    "box": (_fill_masks, _draw_outlines),
    "filled_box": (_fill_masks, _fill_boxes),
    "mask": (_fill_masks, _fill_masks),
    "points": (_fill_masks_or_draw_points, _draw_points),
}


def _has_extent(boxes_K4: np.ndarray) -> np.ndarray:
    """Whether boxes cover an area, bool [K]; those of points do not."""
    return np.all(boxes_K4[:, 2:] > boxes_K4[:, :2], axis=1)


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
