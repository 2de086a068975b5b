"""Reading of videos, from a file or a folder of images, one frame at a time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flashmotion_jax.media.containers import decode, open_video
from flashmotion_jax.media.images import IMAGE_SUFFIXES, read_image

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".gif")


def find_path(folder: Path, name: str) -> Path:
    """Returns the path of a name, whose accents may be composed or decomposed in the folder.

    macOS writes them decomposed, other systems composed.

    Returns:
      The path that exists, else that of the name as it is.
    """
    forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    paths = [folder / form for form in dict.fromkeys((name, *forms))]
    return next((path for path in paths if path.exists()), paths[0])


def find_video(folder: Path, id: str) -> Path:
    """Returns the path of a video in a folder: a file or a folder; `<id>.mp4` by default."""
    suffixes = [*VIDEO_SUFFIXES, *(suffix.upper() for suffix in VIDEO_SUFFIXES), ""]
    paths = [find_path(folder, f"{id}{suffix}") for suffix in suffixes]
    return next((path for path in paths if path.exists()), paths[0])


def image_files(folder: Path) -> list[Path]:
    """Lists image files in the numerical order of their names: 2.jpg is before 10.jpg.

    Args:
      folder: A folder; a missing one has no files.
    """
    there = folder.iterdir() if folder.is_dir() else ()
    files = [file for file in there if file.suffix.lower() in IMAGE_SUFFIXES]

    def key(file: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", file.name)
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return sorted(files, key=key)


def iterate_frames(path: Path) -> Iterator[np.ndarray]:
    """Decodes a video or a folder of images, one frame at a time.

    Yields:
      uint8 [H, W, 3], upright as players show it.

    Raises:
      UserError: The file is missing, is not a video or is truncated; a frame is damaged; an image
        cannot be read.
      OSError: Reading failed for another reason.
    """
    if path.is_dir():
        yield from map(read_image, image_files(path))
        return
    with open_video(path) as (container, stream):
        yield from decode(container, stream, path)
