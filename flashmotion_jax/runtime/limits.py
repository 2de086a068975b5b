"""Bounds on what comes out of a file or a request, checked before memory is taken.

A picture of 13,000 x 13,000 pixels fits into 0.2 MB and takes gigabytes when it is decoded. Readers
therefore compare the sizes in headers with the active limits. They are `COMMAND_LINE`, whose user
owns the machine, except within `limited(EDITOR)`, whose user may be anybody who reaches the server.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from flashmotion_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Limits:
    """A set of bounds.

    Attributes:
      image_pixels: Of an image, a mask, or a frame of a video.
      video_pixels: Of all frames of a video together, which take 3 bytes per pixel in memory.
      json_bytes: Of a JSON document.
      json_values: Values in a JSON document, which take up to 200 bytes each in memory.
      boxes: Boxes of all objects on all frames, which take up to 1 kB each as keyframes.
    """

    image_pixels: int
    video_pixels: int
    json_bytes: int
    json_values: int
    boxes: int


#: Photographs of 100 megapixels; ten times the published video of 121 x 704 x 1280.
COMMAND_LINE = Limits(
    image_pixels=2**27, video_pixels=2**30, json_bytes=2**26, json_values=2_000_000, boxes=2**20
)
#: Photographs of 24 megapixels; the published video. Either takes about 0.5 GB to read.
EDITOR = Limits(
    image_pixels=25_000_000,
    video_pixels=2**27,
    json_bytes=2**25,
    json_values=1_000_000,
    boxes=2**18,
)

_active: ContextVar[Limits] = ContextVar("limits", default=COMMAND_LINE)


@contextmanager
def limited(limits: Limits) -> Generator[None, None, None]:
    """Makes other limits the active ones for the block and for threads that copy its context."""
    token = _active.set(limits)
    try:
        yield
    finally:
        _active.reset(token)


def check_image_size(height: int, width: int, name: object) -> None:
    """Checks the size of an image, a mask or a frame.

    Args:
      height: In pixels.
      width: In pixels.
      name: What has the size, in the message.

    Raises:
      UserError: It has more pixels than the active limits allow.
    """
    most = _active.get().image_pixels
    if height * width > most:
        raise UserError(
            f"{name}: {height} x {width} pixels (height x width), expected at most "
            f"{most / 1e6:.0f} million: scale it down"
        )


def check_video_size(num_frames: int, height: int, width: int, name: object) -> None:
    """Checks the size of a video that is held in memory as a whole.

    Args:
      num_frames: Number of frames.
      height: In pixels.
      width: In pixels.
      name: What has the size, in the message.

    Raises:
      UserError: It has more pixels than the active limits allow.
    """
    check_image_size(height, width, name)
    most = _active.get().video_pixels
    if num_frames * height * width > most:
        raise UserError(
            f"{name}: {num_frames} frames of {height} x {width} pixels (height x width), expected "
            f"at most {most / 1e6:.0f} million pixels in all: use fewer or smaller frames"
        )


def max_json_bytes() -> int:
    """Size that a JSON document may have."""
    return _active.get().json_bytes


def check_json_size(document: bytes | str, name: object) -> None:
    """Checks the size of a JSON document that has not been parsed.

    Args:
      document: The document.
      name: What holds it, in the message.

    Raises:
      UserError: It has more bytes or, if it is text, more values than the active limits allow.
    """
    limits = _active.get()
    if len(document) > limits.json_bytes:
        raise UserError(
            f"{name}: more than {limits.json_bytes / 2**20:.0f} MB of JSON; use a smaller file"
        )
    # An upper bound, because a string may contain these characters, too.
    if isinstance(document, str) and sum(map(document.count, "[{,")) > limits.json_values:
        raise UserError(
            f"{name}: more than {limits.json_values / 1e6:.0f} million values in JSON; use a "
            "smaller file"
        )


def check_num_boxes(num_objects: int, num_frames: int, name: object) -> None:
    """Checks the size of the motion of objects or points, with a box on each frame.

    Args:
      num_objects: Number of objects or points.
      num_frames: Number of frames.
      name: What has the size, in the message.

    Raises:
      UserError: There are more boxes than the active limits allow.
    """
    most = _active.get().boxes
    if num_objects * num_frames > most:
        raise UserError(
            f"{name}: {num_objects} objects on {num_frames} frames, expected at most {most} boxes "
            "in all: use fewer of them"
        )
