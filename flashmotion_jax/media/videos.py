"""Reading and writing videos: files, folders of PNGs and npy arrays. Imports no jax."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image

from flashmotion_jax.media.images import UNREADABLE, check_frames, read_image
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError

FPS = 24.0
"""Frames per second of Wan2.2-TI2V-5B, and of frames that are stored without a rate."""


def read_video(path: str | Path) -> tuple[np.ndarray, float]:
    """Reads all frames of a video file, a folder of PNGs or an npy array.

    Args:
      path: A file PyAV can decode, a folder whose `*.png` are the frames in the order of their
        names, or an `.npy` file of uint8 [F, H, W, 3].

    Returns:
      The frames, uint8 [F, H, W, 3], and the frames per second (`FPS` for a folder or an npy).

    Raises:
      UserError: The path is missing, holds no frames, or cannot be decoded.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path), FPS
    if not path.is_file():
        raise UserError(f"no video at {path}: give a video file, a folder of PNGs or an .npy file")
    try:
        if path.suffix.lower() == ".npy":
            frames, fps = np.load(path, allow_pickle=False), FPS
        else:
            with iio.imopen(path, "r", plugin="pyav") as file:
                fps = float(file.metadata()["fps"])
                frames = np.stack(list(file.iter(thread_type="FRAME")))
    except (*UNREADABLE, av.FFmpegError, EOFError, LookupError) as error:
        raise UserError(f"{path} is not a readable video ({error}): give a whole file") from error
    check_frames(frames, str(path))
    return frames, fps


def _read_folder(path: Path) -> np.ndarray:
    frames = [read_image(file) for file in sorted(path.glob("*.png"))]
    if not frames:
        raise UserError(f"{path} holds no *.png: expected frames such as frame_00000.png")
    if len(sizes := {frame.shape[:2] for frame in frames}) > 1:
        raise UserError(
            f"the frames of {path} have the sizes (height, width) {sorted(sizes)}: "
            "all frames of a video need one size"
        )
    return np.stack(frames)


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
    path = Path(path)
    check_frames(frames, "frames")
    check_output(path)
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
      UserError: The suffix is unknown, the folder contains something other than frames, or a file
        has the name of the folder.
    """
    path = Path(path)
    if not _is_folder(path):
        if path.suffix.lower() not in (".mp4", ".npy"):
            raise UserError(
                f"cannot write {path}: expected .mp4, .npy, or no suffix for a folder of PNGs"
            )
    elif path.is_dir():
        if others := [file.name for file in path.iterdir() if not file.match("frame_*.png")]:
            raise UserError(f"{path} holds {others[0]}: give an empty folder or a new one")
    elif path.exists():
        raise UserError(f"{path} is a file: give a folder, or a name that ends in .mp4 or .npy")


def _is_folder(path: Path) -> bool:
    return not path.suffix or path.is_dir()


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
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": crf})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        if not lossless:
            stream.codec_context.colorspace = matrix
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format, dst_colorspace=matrix)))
        container.mux(stream.encode())
