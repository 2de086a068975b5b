"""Reading and writing videos: files, folders of PNGs and npy arrays. Imports no jax."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from tokenize import TokenError

import av
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image

from flashmotion_jax.media.containers import decode, file_url, open_video
from flashmotion_jax.media.frames import image_files
from flashmotion_jax.media.images import UNREADABLE, check_frames, read_image
from flashmotion_jax.runtime.atomic import check_file, check_folder, is_folder, replacing
from flashmotion_jax.runtime.errors import UserError, is_transient
from flashmotion_jax.runtime.limits import check_video_size

FPS = 24.0
"""Frames per second of Wan2.2-TI2V-5B, and of frames that are stored without a rate."""


class VideoFrames:
    """The frames of a video, which are read whenever they are iterated over.

    A frame is uint8 [H, W, 3], upright as players show it. All have one size, and together they
    have no more pixels than the active limits allow.

    Args:
      path: A video file (MP4, MOV, MKV, WebM, AVI or GIF), a folder whose images are the frames
        in the order of their names, or an `.npy` file of uint8 [F, H, W, 3].

    Attributes:
      fps: Frames per second; `FPS` for a folder or an npy, and before a file was read.

    Raises:
      UserError: The path is missing. Iterating raises it where the path holds no frames, or cannot
        be decoded.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.fps = FPS
        if not self.path.is_dir() and not self.path.is_file():
            raise UserError(
                f"no video at {path}: give a video file, a folder of PNGs or an .npy file"
            )

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame for frame, _ in self._counted())

    def read(self) -> np.ndarray:
        """All frames, uint8 [F, H, W, 3], which are never in memory twice."""
        stacked, count = np.empty((0, 0, 0, 3), np.uint8), 0
        for frame, expected in self._counted():
            if not count:
                stacked = np.empty((max(expected, 1), *frame.shape), np.uint8)
            if count == len(stacked):
                stacked = np.concatenate([stacked, np.empty_like(stacked)])
            stacked[count] = frame
            count += 1
        return stacked[:count]

    def _counted(self) -> Iterator[tuple[np.ndarray, int]]:
        """The frames, each with the expected number of frames, or a guess of it."""
        path = self.path
        shape: tuple[int, ...] = ()
        for count, (frame, expected) in enumerate(self._unchecked(), start=1):
            check_video_size(max(count, expected), frame.shape[0], frame.shape[1], path)
            if shape and frame.shape != shape:
                sizes = sorted({frame.shape[:2], shape[:2]})
                raise UserError(
                    f"the frames of {path} have the sizes (height, width) {sizes}: all frames of a "
                    "video need one size"
                )
            shape = frame.shape
            yield frame, expected
        if not shape:
            raise UserError(f"{path} holds no frames: give a whole file")

    def _unchecked(self) -> Iterator[tuple[np.ndarray, int]]:
        path = self.path
        if path.is_dir():
            files = image_files(path)
            if not files:
                raise UserError(f"{path} holds no images: expected frames such as frame_00000.png")
            yield from ((read_image(file), len(files)) for file in files)
        elif path.suffix.lower() == ".npy":
            mapped = open_array(path)
            check_frames(mapped, str(path))
            yield from ((np.array(frame), len(mapped)) for frame in mapped)
        else:
            with open_video(path) as (container, stream):
                header = stream.codec_context
                # stream.frames is 0 if the header has no number of frames.
                check_video_size(stream.frames, header.height, header.width, path)
                self.fps = float(stream.guessed_rate or FPS)
                yield from ((one, stream.frames) for one in decode(container, stream, path))


def read_video(path: str | Path) -> tuple[np.ndarray, float]:
    """Reads all frames of a video file, a folder of PNGs or an npy array.

    Args:
      path: See `VideoFrames`.

    Returns:
      The frames, uint8 [F, H, W, 3], upright as players show them, and the frames per second (`FPS`
      for a folder or an npy).

    Raises:
      UserError: The path is missing, holds no frames, cannot be decoded, or is larger than the
        active limits allow.
    """
    frames = VideoFrames(path)
    return frames.read(), frames.fps


def open_array(path: Path) -> np.ndarray:
    """Maps an npy file into memory, so that a shape that the file does not hold takes none.

    Raises:
      UserError: The file is missing, damaged, or holds Python objects.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (
        *UNREADABLE,
        EOFError,
        OverflowError,
        TokenError,
    ) as error:  # a damaged header is parsed as Python
        if is_transient(error):
            raise
        # NumPy quotes a damaged header as a whole.
        reason = f"{str(error)[:100]} ..." if len(str(error)) > 100 else error
        raise UserError(f"{path} is not a readable array ({reason}): give a whole file") from error


def write_video(
    path: str | Path, frames: np.ndarray, fps: float = FPS, lossless: bool = False
) -> None:
    """Writes frames as `.mp4`, as `.npy`, or (no suffix) as a folder of PNGs.

    The result replaces `path` only when it is complete.

    Args:
      path: `.mp4` is H.264 at exactly the frames' size, playable while it downloads; `.npy` is
        the array; a path without a suffix, or an existing folder, gets `frame_00000.png`, ...
      frames: uint8 [F, H, W, 3]. H and W are even for an mp4 that is not lossless.
      fps: Frames per second of the mp4.
      lossless: Keep every RGB value of the mp4. Such files can be read exactly, but only
        FFmpeg-based players show them. Otherwise colors are BT.709 yuv420p, for all players.

    Raises:
      UserError: The suffix, the frames or the rate cannot be written, or the folder holds
        something other than frames.
    """
    check_frames(frames, "frames")
    check_output(path)
    path = Path(path)
    with replacing(path) as scratch:
        if _is_folder(path):
            _write_folder(scratch, frames)
            if path.exists():
                path.replace(scratch.with_name("replaced"))
        elif path.suffix.lower() == ".npy":
            np.save(scratch, frames)
        else:
            _write_mp4(scratch, frames, fps, lossless)


def check_output(path: str | Path) -> None:
    """Checks in advance whether `write_video` can write a path.

    Raises:
      UserError: The suffix is unknown, the folder contains something other than frames, a file has
        the name of the folder, or the path is not writable.
    """
    if not str(path) or not _is_folder(Path(path)):
        check_file(path)
        if Path(path).suffix.lower() not in (".mp4", ".npy"):
            raise UserError(
                f"cannot write {path}: expected .mp4, .npy, or no suffix for a folder of PNGs"
            )
        return
    if os.path.lexists(path) and not is_folder(path):
        raise UserError(f"{path} is a file: give a folder, or a name that ends in .mp4 or .npy")
    check_folder(path)
    there = Path(path).iterdir() if is_folder(path) else ()
    if others := [file.name for file in there if not file.match("frame_*.png")]:
        raise UserError(f"{path} holds {others[0]}: give an empty folder or a new one")


def _is_folder(path: Path) -> bool:
    return not path.suffix or is_folder(path)


def _write_folder(path: Path, frames: np.ndarray) -> None:
    path.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"frame_{index:05d}.png")


def _write_mp4(path: Path, frames: np.ndarray, fps: float, lossless: bool) -> None:
    height, width = frames.shape[1:3]
    if not lossless and (height % 2 or width % 2):
        raise UserError(f"frames of {height} x {width}: an mp4 needs an even height and width")
    if not 0 < fps <= 1000:
        raise UserError(f"fps {fps}: expected frames per second above 0 and at most 1000")
    # 1001 keeps the broadcast rates, such as 24000/1001, exact.
    rate = Fraction(fps).limit_denominator(1001)
    codec, pixel_format, crf = ("libx264", "yuv420p", "18")
    if lossless:
        codec, pixel_format, crf = ("libx264rgb", "rgb24", "0")
    # Some players assume BT.601 for untagged colors, others BT.709.
    matrix = Colorspace.ITU709
    with av.open(
        file_url(path), "w", format="mp4", options={"movflags": "+faststart"}
    ) as container:
        # With x264's macroblock tree, the same frames make different files while other threads work
        # (docs/results.md).
        options = {"crf": crf, "x264-params": "mbtree=0"}
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        if not lossless:
            stream.codec_context.colorspace = matrix
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format, dst_colorspace=matrix)))
        container.mux(stream.encode())
