"""MagicMotion's map videos and PNG folders: masks on frame 0, then outlines or masks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np

from flashmotion_jax.config import MapKind
from flashmotion_jax.media.frames import VIDEO_SUFFIXES, image_files
from flashmotion_jax.media.images import IMAGE_SUFFIXES
from flashmotion_jax.media.videos import VideoFrames, open_array, read_video, write_video
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.drawing import stroke_radius
from flashmotion_jax.trajectory.formats.base import (
    ExportRequest,
    Format,
    Imported,
    ImportOptions,
    files_of,
    zip_folder,
)
from flashmotion_jax.trajectory.keyframes import keyframes_from_boxes
from flashmotion_jax.trajectory.map_boxes import boxes_of_label
from flashmotion_jax.trajectory.masks import Mask
from flashmotion_jax.trajectory.palette import palette_color
from flashmotion_jax.trajectory.quantize import exact_maps, label_maps
from flashmotion_jax.trajectory.render import render
from flashmotion_jax.trajectory.schema import Canvas, TrackedObject, Trajectory

_VIDEO_SUFFIXES = (*VIDEO_SUFFIXES, ".npy")
_LIMITS = "names, easing, and masks of objects that enter after the first frame"


def read_magicmotion(
    path: str | Path, map_kind: MapKind = "box", tolerance: float = 0.45
) -> Trajectory:
    """Reads a map video: its masks become the objects' masks, its outlines their boxes.

    An object in the default color of an id gets that id. Boxes are completed where other objects or
    the edge of the image hide parts of them, see `boxes_of_label`. Frames that are all black make
    the trajectory sparse. Objects that enter after frame 0 have no masks, and are only found if
    frame 0 has exact colors.

    Args:
      path: A video (lossy or not) or a folder of PNGs; the canvas gets its size.
      map_kind: What frames after the first show.
      tolerance: Largest difference in pixels between the keyframes and the boxes read. Below 0.5,
        maps rendered at the same size are identical; 1.5 gives fewer keyframes for lossy videos.

    Raises:
      UserError: The video cannot be read, or its first frame shows no object.
    """
    frames = VideoFrames(path)
    labels, colors_C3 = _read_labels(frames)
    return _trajectory(labels, colors_C3, frames.fps, map_kind, tolerance)


def trajectory_of_maps(
    maps: np.ndarray, map_kind: MapKind = "box", tolerance: float = 0.45
) -> Trajectory:
    """Finds the objects of maps uint8 `[F, H, W, 3]`; other arguments as in `read_magicmotion`.

    Raises:
      UserError: The first frame shows no object.
    """
    return _trajectory(*label_maps(maps), 24.0, map_kind, tolerance)


def _trajectory(
    labels: list[np.ndarray],
    colors_C3: np.ndarray,
    fps: float,
    map_kind: MapKind,
    tolerance: float,
) -> Trajectory:
    height, width = labels[0].shape
    drawn_F = np.array([labels_HW.any() for labels_HW in labels])
    shown = np.flatnonzero(drawn_F)
    shown_labels = [labels[frame] for frame in shown]
    size = np.array([width, height] * 2)
    radius = stroke_radius(height, width)
    # Frame 0 shows masks.
    radius_F = np.where((shown > 0) & (map_kind == "box"), radius, -1)
    identities = list(_identities(colors_C3))
    ids = np.array([object_id for object_id, _ in identities])
    objects = []
    for label, (object_id, color) in enumerate(identities, start=1):
        covering = 1 + np.flatnonzero(ids > object_id)
        boxes_F4 = boxes_of_label(shown_labels, label, shown, radius_F, covering)
        # Where an object has left for good it may have gone further than the format allows.
        boxes_F4 = np.clip(boxes_F4 / size, -10, 11)
        keyframes = keyframes_from_boxes(shown, boxes_F4, tolerance / size)
        mask = Mask.from_array(labels[0] == label) if (labels[0] == label).any() else None
        objects.append(TrackedObject(object_id, keyframes, f"object {object_id}", color, mask))
    return Trajectory(
        canvas=Canvas(width, height),
        num_frames=len(labels),
        fps=fps,
        objects=tuple(sorted(objects, key=lambda item: item.id)),
        sparse_frames=None if drawn_F.all() else tuple(shown.tolist()),
    )


def _read_labels(frames: VideoFrames) -> tuple[list[np.ndarray], np.ndarray]:
    try:
        return label_maps(frames)
    except UserError as error:
        message = str(error)
        named = message if str(frames.path) in message else f"{frames.path}: {message}"
        raise UserError(named) from None


def write_magicmotion(trajectory: Trajectory, path: str | Path, map_kind: MapKind = "box") -> None:
    """Writes a map video of the canvas's size: a lossless `.mp4`, or a folder of PNGs.

    Raises:
      UserError: The path cannot be written as a video.
    """
    canvas = trajectory.canvas
    maps = render(trajectory, canvas.height, canvas.width, map_kind, compat="magicmotion")
    write_video(path, maps, trajectory.fps, lossless=True)


def _identities(colors_C3: np.ndarray) -> Iterator[tuple[int, str | None]]:
    """An id and, where it is not the default one, a color for each object."""
    ids = {palette_color(object_id): object_id for object_id in range(1, 300)}
    named = [ids.get(tuple(color)) for color in colors_C3.tolist()]
    free = (number for number in count(1) if number not in named)
    for object_id, color in zip(named, colors_C3.tolist(), strict=True):
        yield (object_id, None) if object_id else (next(free), "#" + bytes(color).hex())


def is_map_array(file: Path) -> bool:
    """Whether an `.npy` file holds frames [F, H, W, 3]; False if it cannot be read."""
    try:
        shape = open_array(file).shape
    except UserError:
        return False
    return len(shape) == 4 and shape[-1] == 3


def _is_video(path: Path) -> bool:
    files = files_of(path, _VIDEO_SUFFIXES)
    return any(file.suffix.lower() != ".npy" or is_map_array(file) for file in files)


def _read_video(path: Path, options: ImportOptions) -> Imported:
    file = files_of(path, _VIDEO_SUFFIXES)[0]
    return _imported(read_magicmotion(file, options.map_kind))


def _imported(trajectory: Trajectory) -> Imported:
    later = [str(one.id) for one in trajectory.objects if one.mask is None]
    notice = f"objects {', '.join(later)} enter after frame 0, so their masks are not known"
    return Imported(trajectory, notices=(notice,) if later else ())


def _video_maps(path: Path) -> np.ndarray:
    """The frames of a map video; those of a lossy codec get their exact colors back."""
    file = files_of(path, _VIDEO_SUFFIXES)[0]
    return read_video(file)[0] if file.suffix.lower() == ".npy" else _exact(file)


def _exact(path: Path) -> np.ndarray:
    frames, _ = read_video(path)
    try:
        return exact_maps(frames)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _write_video(request: ExportRequest, folder: Path) -> Path:
    file = folder / f"{request.stem}-maps.mp4"
    write_video(file, request.maps(request.map_kind), request.fps, lossless=True)
    return file


def _is_folder_of_images(path: Path) -> bool:
    return path.is_dir() and bool(files_of(path, IMAGE_SUFFIXES))


def _image_folder(path: Path) -> Path:
    """The folder that holds the frames: the path itself, or the first one below it."""
    return path if image_files(path) else files_of(path, IMAGE_SUFFIXES)[0].parent


def _read_images(path: Path, options: ImportOptions) -> Imported:
    return _imported(read_magicmotion(_image_folder(path), options.map_kind))


def _write_images(request: ExportRequest, folder: Path) -> Path:
    write_video(folder / "maps", request.maps(request.map_kind))
    return zip_folder(folder / "maps", folder / f"{request.stem}-maps.zip")


MAP_VIDEO = Format(
    name="magicmotion_mp4",
    title="MagicMotion map video",
    suffixes=_VIDEO_SUFFIXES,
    limits=_LIMITS,
    recognizes=_is_video,
    read=_read_video,
    write=_write_video,
    read_maps=_video_maps,
    writes_maps=True,
)
MAP_IMAGES = Format(
    name="magicmotion_png",
    title="MagicMotion maps as PNG files",
    suffixes=IMAGE_SUFFIXES,
    limits=f"the frame rate, {_LIMITS}",
    recognizes=_is_folder_of_images,
    read=_read_images,
    write=_write_images,
    read_maps=lambda path: _exact(_image_folder(path)),
    writes_maps=True,
)
