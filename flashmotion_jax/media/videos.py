"""Images and videos: files to uint8 frames, the size Wan2.2 works at, and back to files.

The first and the last step of sampling: a photograph is read, cropped to the size the model works
at and brought to [-1, 1]; the finished video becomes an mp4, a folder of PNGs or an npy file.
Trajectory maps take the same way, with nearest-neighbour resizing. Numpy only, no jax.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import imageio.v3 as iio
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image, ImageOps

from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError

Frames = TypeVar("Frames", bound=Any)

FPS = 24.0
"""Frames per second of Wan2.2-TI2V-5B, and of stored frames that carry no rate of their own."""

_UNREADABLE = (OSError, ValueError, SyntaxError, av.FFmpegError, Image.DecompressionBombError)


def read_image(path: str | Path) -> np.ndarray:
    """Reads a photograph the way a viewer shows it.

    Args:
      path: Any format Pillow knows. The EXIF orientation is applied, transparency is composited
        over black, greyscale becomes RGB, 16-bit greyscale keeps its upper 8 bits.

    Returns:
      uint8 [H, W, 3].

    Raises:
      UserError: The file is missing or is not an image Pillow can read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no image at {path}: give the path of a PNG, JPEG or WebP file")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            rgba = upright.convert("RGBA")
    except _UNREADABLE as error:
        raise UserError(
            f"{path} is not a readable image ({error}): give a whole PNG, JPEG or WebP file"
        ) from error
    black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
    return np.asarray(Image.alpha_composite(black, rgba).convert("RGB"))


def read_video(path: str | Path) -> tuple[np.ndarray, float]:
    """Reads every frame of a video file, a folder of PNGs or an npy array.

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
    except (*_UNREADABLE, EOFError, LookupError) as error:
        raise UserError(f"{path} is not a readable video ({error}): give a whole file") from error
    _check_frames(frames, str(path))
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

    The result appears at `path` only when it is whole; what was there before is replaced.

    Args:
      path: `.mp4` is H.264 at exactly the frames' size, playable while it downloads; `.npy` is
        the array; a path without suffix, or an existing folder, takes `frame_00000.png`, ...
      frames: uint8 [F, H, W, 3]. H and W are even for an mp4 that is not lossless.
      fps: Frames per second of the mp4.
      lossless: Keep every RGB value of the mp4. Such files import exactly, but only players
        built on FFmpeg show them; without it colors are BT.709 yuv420p, which all players do.

    Raises:
      UserError: The suffix, the frames or the rate cannot be written, or the folder holds
        something other than frames.
    """
    path = Path(path)
    _check_frames(frames, "frames")
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
    """Tells before the work whether `write_video` could write there.

    Raises:
      UserError: The suffix is none that is written, the folder holds something other than
        frames, or the folder's name is taken by a file.
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


def _check_frames(frames: np.ndarray, name: str) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise UserError(f"{name}: {frames.dtype} {list(frames.shape)}, expected uint8 [F, H, W, 3]")


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
    # Untagged colors are taken for BT.601 by some players and for BT.709 by others.
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


def best_size(
    height: int, width: int, max_area: int, multiples: tuple[int, int]
) -> tuple[int, int]:
    """The size Wan2.2 gives the video of an image: its aspect ratio, as many pixels as allowed.

    Two candidates round the ideal size down to the multiples, one starting from the width, one
    from the height, and fill `max_area` with the other side; the nearer aspect ratio wins.

    Source: `best_output_size` in upstream Wan2.2, `wan/utils/utils.py`.

    Args:
      height: Of the image, in pixels.
      width: Of the image, in pixels.
      max_area: Pixels a frame may have.
      multiples: What height and width are multiples of: the pixels of a token.

    Returns:
      (height, width) in pixels.

    Raises:
      UserError: No size of about this aspect ratio fits.
    """
    if min(height, width, max_area, *multiples) < 1:
        raise UserError(
            f"height {height}, width {width}, max_area {max_area}, multiples {multiples}: "
            "expected whole numbers of at least 1"
        )
    aspect = width / height
    ideal_width = (max_area * aspect) ** 0.5

    def pair(ideal_side: float, multiple: int, other_multiple: int) -> tuple[int, int]:
        side = int(ideal_side // multiple * multiple)
        return side, int(max_area / max(side, 1) // other_multiple * other_multiple)

    from_height = pair(max_area / ideal_width, *multiples)
    from_width = pair(ideal_width, *multiples[::-1])[::-1]
    if not min(*from_height, *from_width):
        raise UserError(
            f"an image of {height} x {width} has no size of at most {max_area} pixels in "
            f"multiples of {multiples[0]} x {multiples[1]}: crop it, or allow a larger area"
        )

    def misfit(size: tuple[int, int]) -> float:
        candidate = size[1] / size[0]
        return max(aspect / candidate, candidate / aspect)

    return min(from_height, from_width, key=misfit)


def cover_geometry(
    source_hw: tuple[int, int], target_hw: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Where "resize to cover, then crop the centre" puts the target in the resized source.

    Source: `i2v` in upstream Wan2.2, `wan/textimage2video.py`.

    Args:
      source_hw: Height and width of the source, in pixels.
      target_hw: Height and width wanted, in pixels.

    Returns:
      (resized_height, resized_width, top, left): the whole source is resized to the first two,
      the target starts at the last two.

    Raises:
      UserError: A side is below one pixel.
    """
    if min(*source_hw, *target_hw) < 1:
        raise UserError(
            f"cannot crop {source_hw} to {target_hw}: expected heights and widths of at least 1"
        )
    (height, width), (target_height, target_width) = source_hw, target_hw
    scale = max(target_width / width, target_height / height)
    resized_height, resized_width = round(height * scale), round(width * scale)
    top, left = (resized_height - target_height) // 2, (resized_width - target_width) // 2
    return resized_height, resized_width, top, left


def cover_crop(frames: np.ndarray, height: int, width: int, nearest: bool = False) -> np.ndarray:
    """Resizes an image or a video until it covers the size, then crops the centre.

    Source: `i2v` in upstream Wan2.2, `wan/textimage2video.py`.

    Args:
      frames: uint8 [H, W, 3] or [F, H, W, 3].
      height: Wanted, in pixels.
      width: Wanted, in pixels.
      nearest: For maps, whose colors must not mix; pictures are resized with Lanczos.

    Returns:
      uint8 [height, width, 3] or [F, height, width, 3].

    Raises:
      UserError: The frames are something else, or the size is below one pixel.
    """
    if frames.ndim == 3:
        return cover_crop(frames[None], height, width, nearest)[0]
    _check_frames(frames, "frames")
    resized_height, resized_width, top, left = cover_geometry(
        (frames.shape[1], frames.shape[2]), (height, width)
    )
    resample = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
    cropped = np.empty((len(frames), height, width, 3), np.uint8)
    for source, target in zip(frames, cropped, strict=True):
        resized = Image.fromarray(source).resize((resized_width, resized_height), resample)
        target[:] = np.asarray(resized.crop((left, top, left + width, top + height)))
    return cropped


def to_float(frames: Frames) -> Frames:
    """Pixels 0..255 to the models' [-1, 1].

    Args:
      frames: uint8, any shape; a numpy array or a jax one.

    Returns:
      float32, the same shape.
    """
    return frames.astype(np.float32) / 127.5 - 1.0


def to_uint8(video: Frames) -> Frames:
    """The models' [-1, 1] to pixels 0..255, rounded and clipped: the inverse of `to_float`.

    Args:
      video: Floats, any shape; a numpy array or a jax one.

    Returns:
      uint8, the same shape.
    """
    return ((video + 1.0) * 127.5).clip(0.0, 255.0).round().astype(np.uint8)
