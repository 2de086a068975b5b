"""Video files: opened from the file system only, in containers of a short list. Imports no jax.

FFmpeg also opens addresses (`http://...`) and files that name further inputs (playlists, SDP).
Such files must neither cause a request nor wait for one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np

from flashmotion_jax.runtime.errors import UserError, is_transient, require_file
from flashmotion_jax.runtime.limits import check_image_size

#: FFmpeg's names of the formats that are read: MP4 and MOV, MKV and WebM, AVI, GIF.
_FORMATS = "mov,matroska,avi,gif"
_EXPECTED = "expected an intact MP4, MOV, MKV, WebM, AVI or GIF file"
#: Largest part of a display matrix's entries that rounding explains; else it is an oblique angle.
_OBLIQUE = 0.02


@contextmanager
def open_video(path: str | Path) -> Generator[tuple[Any, Any], None, None]:
    """Opens a video file for reading.

    Args:
      path: The file.

    Yields:
      PyAV's container and its first video stream, set up for decoding by several threads.

    Raises:
      UserError: The file is missing, is no video, or the block raised an error of FFmpeg.
      OSError: The disk or the network failed.
    """
    path = Path(path)
    require_file(path, "video file", _EXPECTED)
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        # FFmpeg reports damage, too, as an input/output error, a missing permission or too little
        # memory. Python reads the file here, so that the machine's are Python's own exceptions.
        with path.open("rb") as file, av.open(file, options=options) as container:
            if not container.streams.video:
                raise UserError(f"{path} holds no video: {_EXPECTED}")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UserError(f"{path} holds a video of an unknown codec: {_EXPECTED}")
            stream.thread_type = "FRAME"
            # A damaged frame must be an error; by default, FFmpeg would conceal it.
            stream.codec_context.options = {"err_detect": "explode"}
            check_image_size(stream.codec_context.height, stream.codec_context.width, path)
            yield container, stream
    except (av.FFmpegError, OSError, EOFError, LookupError, UnicodeDecodeError) as error:
        if is_transient(error) and not isinstance(error, av.FFmpegError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} is not a readable video ({reason}): {_EXPECTED}") from error


def file_url(path: Path) -> str:
    """The path as FFmpeg's URL of a file, so that no part of it is taken for a protocol."""
    return f"file:{path}"


def decode(container: Any, stream: Any, path: Path) -> Iterator[np.ndarray]:
    """Decodes the frames of a stream, upright as players show them.

    Yields:
      uint8 [H, W, 3].

    Raises:
      UserError: A frame is damaged or too large, or is to be shown at an oblique angle.
    """
    for index, frame in enumerate(container.decode(stream)):
        if frame.is_corrupt:
            raise UserError(f"frame {index} is damaged")
        check_image_size(frame.height, frame.width, f"{path}, frame {index}")
        matrix = frame.side_data.get("DISPLAYMATRIX")
        pixels = frame.to_ndarray(format="rgb24")
        yield pixels if matrix is None else _upright(pixels, np.frombuffer(matrix, "=i4"), path)


def _upright(pixels_HW3: np.ndarray, matrix: np.ndarray, path: Path) -> np.ndarray:
    """Applies a display matrix of quarter turns and flips.

    The matrix moves a pixel from (x, y) to (a x + c y, b x + d y) for the entries a, b and c, d at
    the start of its first two rows. Phones store videos as the sensor saw them, with such a matrix.
    """
    a, b, c, d = (float(entry) for entry in matrix[[0, 1, 3, 4]])
    swaps = abs(b) > abs(a)
    if min(abs(a), abs(b)) > _OBLIQUE * max(abs(a), abs(b)):
        raise UserError(
            f"{path} is to be shown at an oblique angle: expected quarter turns; render it upright"
        )
    if swaps:
        pixels_HW3 = pixels_HW3.transpose(1, 0, 2)
    flip_y, flip_x = (b < 0, c < 0) if swaps else (d < 0, a < 0)
    return np.ascontiguousarray(pixels_HW3[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
