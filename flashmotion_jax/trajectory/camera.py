"""Camera motion for the boxes and points of a trajectory: pan, zoom, roll, dolly, and anchors.

A trajectory says nothing about the background, so camera motion is told by moving all objects as
the camera would move them, after their own motion. Anchors are small boxes of the background, which
only the camera moves: with a camera at rest, they say that the background stays in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice, product

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.edit import with_boxes
from flashmotion_jax.trajectory.keyframes import EASINGS, Keyframe
from flashmotion_jax.trajectory.palette import palette_color
from flashmotion_jax.trajectory.schema import TrackedObject, Trajectory
from flashmotion_jax.trajectory.validation import BOX_LIMITS, MAX_ID

FORMS = "pan:DX,DY, zoom:FACTOR, roll:DEGREES, dolly:DISTANCE[,ID=DEPTH...], anchors or static"
"""The texts that `Camera.parse` reads, for messages and help."""

#: Side of an anchor, as a fraction of the shorter side of the canvas.
_ANCHOR_SIDE = 0.08
#: Centers of the anchors on both axes, as fractions of the canvas.
_ANCHOR_GRID = (1 / 6, 1 / 2, 5 / 6)


@dataclass(frozen=True)
class Camera:
    """A camera motion over the whole video, which starts and ends slowly.

    Attributes:
      pan: (dx, dy), how far the picture moves to the right and down until the last frame, in widths
        and heights of the canvas; the camera turns the other way.
      zoom: Scale of the picture on the last frame about its center; above 1 zooms in.
      roll: Degrees that the picture turns clockwise about its center. Boxes stay upright and become
        as large as the bounding boxes of the turned ones.
      dolly: How far the camera moves into the picture, in the unit of the depths: objects at depth
        D grow by D / (D - dolly) and move away from the center. Negative moves it back.
      depths: Id of an object -> its depth on frame 0; 1 for others.
      background_depth: Depth of the anchors.
      anchors: Whether to add anchors, see `add_anchors`.

    Raises:
      UserError: On construction: a value is not a number or out of range.
    """

    pan: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    roll: float = 0.0
    dolly: float = 0.0
    depths: Mapping[int, float] = field(default_factory=dict)
    background_depth: float = 1.0
    anchors: bool = False

    def __post_init__(self):
        for value in self.pan:
            _check_range("camera pan", value, -10, 10, "widths or heights of the canvas")
        _check_range("camera zoom", self.zoom, 0.01, 100, "1 changes nothing")
        _check_range("camera roll", self.roll, -3600, 3600, "degrees")
        _check_range("camera dolly", self.dolly, -1000, 1000, "in the unit of the depths")
        depths = {f"object {number}": depth for number, depth in self.depths.items()}
        depths["the anchors"] = self.background_depth
        for name, depth in depths.items():
            _check_range(f"camera depth of {name}", depth, 0.001, 1000, "1 is the default")

    @property
    def is_still(self) -> bool:
        """Whether nothing moves the picture."""
        return (*self.pan, self.zoom, self.roll, self.dolly) == (0, 0, 1, 0, 0)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Camera:
        """Reads the parts of a camera motion, such as "pan:0.2,0" and "anchors".

        "static" is a camera at rest, with anchors.

        Raises:
          UserError: A text has none of the `FORMS`, a part is given twice, or a value is invalid.
        """
        found: dict[str, str] = {}
        for text in texts:
            name, colon, value = text.strip().partition(":")
            if name not in _PARTS or bool(colon) != (name not in ("anchors", "static")):
                raise UserError(f"camera {text!r:.60}; expected {FORMS}")
            if name in found:
                raise UserError(f"camera {name} is given twice; leave one out")
            found[name] = value
        if "static" in found and len(found) > 1:
            others = ", ".join(name for name in found if name != "static")
            raise UserError(
                f"camera static with {others}; leave static out, or use anchors, which move with "
                "the camera"
            )
        fields: dict[str, object] = {}
        for name, value in found.items():
            try:
                fields |= _PARTS[name](value)
            except ValueError:
                raise UserError(f"camera '{name}:{value:.60}'; expected {FORMS}") from None
        return cls(**fields)  # type: ignore[arg-type]


def apply_camera(trajectory: Trajectory, camera: Camera) -> Trajectory:
    """Moves all objects as a camera would, in addition to their own motion.

    A point p and a box of size w x h, at progress u, which eases from 0 on the first frame to 1 on
    the last, go to `c + s R (p - c) + u pan` and `s (w |cos| + h |sin|)` x `s (h |cos| + w |sin|)`
    with the center c, the rotation R by `u roll` in pixels, and
    `s = zoom^u depth / (depth - u dolly)`. Frame 0, and so masks, do not change. Boxes may leave
    the canvas. Objects that move get linear keyframes, or other points if they follow points.

    Args:
      trajectory: Trajectory to derive from; it is not changed.
      camera: The motion.

    Raises:
      UserError: Depths are of objects that do not exist, the trajectory has one frame, the camera
        reaches an object, or an object goes too far away; or as in `add_anchors`.
    """
    ids = [item.id for item in trajectory.objects]
    if unknown := sorted(set(camera.depths) - set(ids)):
        raise UserError(f"camera depth of object {unknown[0]}, expected one of {ids!r:.200}")
    if camera.anchors:
        trajectory = add_anchors(trajectory)
    if camera.is_still:
        return trajectory
    if trajectory.num_frames < 2:
        raise UserError("camera motion in a trajectory of one frame; expected at least 2 frames")
    depths_K = [
        camera.depths.get(item.id, 1.0 if item.id in ids else camera.background_depth)
        for item in trajectory.objects
    ]
    nearest = int(np.argmin(depths_K)) if depths_K else None
    if nearest is not None and camera.dolly >= depths_K[nearest]:
        item = trajectory.objects[nearest]
        raise UserError(
            f"camera dolly {camera.dolly:g} reaches object {item.id} {item.name[:40]!r} at depth "
            f"{depths_K[nearest]:g}; expected less than every depth, such as half of the smallest"
        )
    boxes_KF4 = _through(trajectory.boxes(), camera, np.array(depths_K), trajectory)
    _check_reach(trajectory, boxes_KF4)
    return with_boxes(trajectory, dict(enumerate(boxes_KF4)))


def add_anchors(trajectory: Trajectory) -> Trajectory:
    """Adds small objects of the background that stay in place.

    They are a grid of 3 x 3 squares of 8 % of the shorter side, without those that overlap a box or
    mask of frame 0, in colors of their own; points, if no object has an extent. Current models were
    not trained on objects of the background, and may take anchors for things to draw.

    Args:
      trajectory: Trajectory to derive from; it is not changed.

    Raises:
      UserError: No place or id is left, or there are more boxes than the active limits allow.
    """
    canvas = trajectory.canvas
    half = _ANCHOR_SIDE / 2 * min(canvas.width, canvas.height)
    half_4 = half * np.array([-1, -1, 1, 1]) / ([canvas.width, canvas.height] * 2)
    places_N4 = np.array([(x, y, x, y) for y, x in product(_ANCHOR_GRID, repeat=2)]) + half_4
    boxes_KF4 = trajectory.boxes()
    taken = [*boxes_KF4[:, 0], *(i.mask.box() for i in trajectory.objects if i.mask)]
    free = [place for place in places_N4 if not any(_overlap(place, box) for box in taken)]
    if not free:
        raise UserError(
            "no place for anchors: on frame 0, objects cover the whole 3 x 3 grid of the canvas; "
            "use a camera without anchors, or leave out an object of the background"
        )
    if trajectory.objects and np.array_equal(boxes_KF4[..., :2], boxes_KF4[..., 2:]):
        free = [np.tile((place[:2] + place[2:]) / 2, 2) for place in free]
    ids = _free_ids(trajectory, len(free))
    anchors = [
        TrackedObject(object_id, (Keyframe(0, tuple(place.tolist())),), f"anchor {number}")
        for number, (place, object_id) in enumerate(zip(free, ids, strict=True), 1)
    ]
    return replace(trajectory, objects=(*trajectory.objects, *anchors))


def _through(
    boxes_KF4: np.ndarray, camera: Camera, depths_K: np.ndarray, trajectory: Trajectory
) -> np.ndarray:
    """The boxes [K, F, 4] as the camera sees them."""
    size = np.array([trajectory.canvas.width, trajectory.canvas.height], np.float64)
    times = np.linspace(0, 1, trajectory.num_frames).tolist()
    u_F1 = np.array([[EASINGS["smooth"](time)] for time in times])
    depths_K11 = depths_K[:, None, None]
    scale_KF1 = camera.zoom**u_F1 * depths_K11 / (depths_K11 - u_F1 * camera.dolly)
    angle_F1 = np.radians(camera.roll) * u_F1
    cos_F1, sin_F1 = np.cos(angle_F1), np.sin(angle_F1)

    centers_KF2 = ((boxes_KF4[..., :2] + boxes_KF4[..., 2:]) / 2 - 0.5) * size
    x_KF1, y_KF1 = centers_KF2[..., :1], centers_KF2[..., 1:]
    turned = [cos_F1 * x_KF1 - sin_F1 * y_KF1, sin_F1 * x_KF1 + cos_F1 * y_KF1]
    centers_KF2 = 0.5 + scale_KF1 * np.concatenate(turned, -1) / size + u_F1 * np.array(camera.pan)

    sides_KF2 = (boxes_KF4[..., 2:] - boxes_KF4[..., :2]) * size
    # Axes swap places by the sine.
    sides_KF2 = np.abs(cos_F1) * sides_KF2 + np.abs(sin_F1) * sides_KF2[..., ::-1]
    half_KF2 = scale_KF1 * sides_KF2 / size / 2
    return np.concatenate([centers_KF2 - half_KF2, centers_KF2 + half_KF2], -1)


def _check_reach(trajectory: Trajectory, boxes_KF4: np.ndarray) -> None:
    """Checks that boxes stay in the range of the format, and points in the canvas on a frame."""
    low, high = BOX_LIMITS
    for item, boxes_F4 in zip(trajectory.objects, boxes_KF4, strict=True):
        outside_F = ((boxes_F4 < low) | (boxes_F4 > high)).any(axis=1)
        name = f"object {item.id} {item.name[:40]!r}"
        if outside_F.any():
            frame = int(outside_F.argmax())
            edges = np.round(boxes_F4[frame], 2).tolist()
            raise UserError(
                f"the camera moves {name} to {edges} on frame {frame}, expected {low} to {high} "
                "widths and heights of the canvas; use a smaller motion"
            )
        shown_F = item.shown(np.arange(trajectory.num_frames))
        inside_F = ((boxes_F4 >= 0) & (boxes_F4 <= 1)).all(axis=1) & shown_F
        if item.points is not None and not inside_F.any():
            raise UserError(
                f"the camera moves {name}, a point, out of the canvas on all frames that show it; "
                "use a smaller motion, or leave it out"
            )


def _overlap(a: Iterable[float], b: Iterable[float]) -> bool:
    ax0, ay0, ax1, ay1 = a
    bx0, by0, bx1, by1 = b
    return ax0 < bx1 and bx0 < ax1 and ay0 < by1 and by0 < ay1


def _free_ids(trajectory: Trajectory, count: int) -> list[int]:
    """Ids above those of the objects whose colors no object has."""
    taken = {item.rgb for item in trajectory.objects}
    first = max((item.id for item in trajectory.objects), default=0) + 1
    candidates = (one for one in range(first, MAX_ID + 1) if palette_color(one) not in taken)
    ids = list(islice(candidates, count))
    if len(ids) < count:
        raise UserError(
            f"{count} anchors need ids above {first - 1}, expected at most {MAX_ID}: renumber the "
            "objects from 1"
        )
    return ids


def _check_range(name: str, value: float, low: float, high: float, meaning: str) -> None:
    # NaN fails both comparisons.
    if not low <= value <= high:
        raise UserError(f"{name} {value:g}, expected a number from {low:g} to {high:g}: {meaning}")


def _parse_pan(text: str) -> dict[str, object]:
    dx, dy = map(float, text.split(","))
    return {"pan": (dx, dy)}


def _parse_dolly(text: str) -> dict[str, object]:
    distance, *pairs = text.split(",")
    depths: dict[int, float] = {}
    fields: dict[str, object] = {"dolly": float(distance), "depths": depths}
    for pair in pairs:
        name, depth = pair.split("=")
        if name.strip() == "background":
            fields["background_depth"] = float(depth)
        else:
            depths[int(name)] = float(depth)
    return fields


#: Name of a part of a camera motion -> what makes fields of `Camera` of its text.
_PARTS = {
    "pan": _parse_pan,
    "zoom": lambda text: {"zoom": float(text)},
    "roll": lambda text: {"roll": float(text)},
    "dolly": _parse_dolly,
    "anchors": lambda text: {"anchors": True},
    "static": lambda text: {"anchors": True},
}
