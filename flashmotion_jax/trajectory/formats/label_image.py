"""Label images: one object for each label, at rest. What a segmenter or a paint program saves."""

from __future__ import annotations

from pathlib import Path

from flashmotion_jax.media.images import IMAGE_SUFFIXES
from flashmotion_jax.trajectory.formats.base import (
    Format,
    Imported,
    ImportOptions,
    files_of,
)
from flashmotion_jax.trajectory.labels import label_objects
from flashmotion_jax.trajectory.schema import Canvas, Trajectory


def _recognizes(path: Path) -> bool:
    # Images in a folder are the frames of a map video.
    return not path.is_dir() and bool(files_of(path, IMAGE_SUFFIXES))


def _read(path: Path, options: ImportOptions) -> Imported:
    objects, notices = label_objects(path)
    mask = objects[0].mask
    assert mask is not None  # `label_objects` gives every object one
    canvas = Canvas(mask.size[1], mask.size[0])
    trajectory = Trajectory(canvas, options.num_frames, options.fps, objects)
    return Imported(trajectory, notices=notices)


LABEL_IMAGE = Format(
    name="labels",
    title="Label image",
    suffixes=IMAGE_SUFFIXES,
    limits="motion and names",
    recognizes=_recognizes,
    read=_read,
)
