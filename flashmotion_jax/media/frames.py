"""Reading of videos, from a file or a folder of images, one frame at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from flashmotion_jax.media.images import IMAGE_SUFFIXES, read_image
from flashmotion_jax.runtime.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".mkv")


def find_video(folder: Path, id: str) -> Path:
    """Returns the path of a video in a folder: a file or a folder; `<id>.mp4` by default."""
    paths = [folder / f"{id}{suffix}" for suffix in (*VIDEO_SUFFIXES, "")]
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
    """Decodes a video or a folder of images.

    Yields:
      uint8 [H, W, 3].

    Raises:
      UserError: A frame is damaged, or an image cannot be read.
      OSError: The file does not exist.
      av.FFmpegError: The file is not a video, or is truncated.
    """
    if path.is_dir():
        yield from map(read_image, image_files(path))
        return
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise UserError(f"{path} holds no video")
        stream = container.streams.video[0]
        stream.thread_type = "FRAME"
        # A damaged frame must be an error; by default, FFmpeg would conceal it.
        stream.codec_context.options = {"err_detect": "explode"}
        for i, frame in enumerate(container.decode(stream)):
            if frame.is_corrupt:
                raise UserError(f"frame {i} is damaged")
            yield frame.to_ndarray(format="rgb24")
