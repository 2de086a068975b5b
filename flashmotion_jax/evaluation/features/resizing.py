"""Resizing as the libraries of FID and FVD do it, on which their numbers depend."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kernel = Literal["bilinear", "bicubic"]
Crop = Literal["stretch", "center"]

#: How far a kernel reaches to each side, in pixels of the smaller of the two images.
_REACH: dict[Kernel, int] = {"bilinear": 1, "bicubic": 2}


@dataclass(frozen=True)
class Resize:
    """A way to resize a frame to a square.

    Attributes:
      size: Side of the square in pixels.
      kernel: "bilinear", or "bicubic" with Pillow's parameter of -0.5.
      antialias: Whether to widen the kernel if a frame gets smaller, as Pillow does. Without it,
        pixels between the sampling points have no influence.
      half_pixel: Whether pixels are areas whose centers are at 0.5. If not, they are points at
        whole numbers, as TensorFlow 1 resizes.
      crop: "stretch" changes the aspect ratio, "center" resizes the shorter side and crops the
        longer one on both ends.
    """

    size: int
    kernel: Kernel = "bilinear"
    antialias: bool = False
    half_pixel: bool = True
    crop: Crop = "stretch"

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Resizes a frame.

        Args:
          frame: uint8 `[H, W, 3]`.

        Returns:
          float32 `[size, size, 3]` in 0..255, not rounded.

        Raises:
          ValueError: The frame has another shape or dtype.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or not frame.size:
            raise ValueError(f"a frame of {frame.dtype} {frame.shape}: expected uint8 [H, W, 3]")
        height, width = frame.shape[:2]
        new_height, new_width = self.size, self.size
        if self.crop == "center":
            scale = self.size / min(height, width)
            # The longer side is rounded down, as torch's `interpolate` by sizes is called.
            new_height = self.size if height <= width else int(height * scale + 1e-9)
            new_width = self.size if width <= height else int(width * scale + 1e-9)
        rows = self._taps(height, new_height)
        columns = self._taps(width, new_width)
        resized = _gather(_gather(frame, *rows).swapaxes(0, 1), *columns).swapaxes(0, 1)
        top, left = (new_height - self.size) // 2, (new_width - self.size) // 2
        resized = resized[top : top + self.size, left : left + self.size]
        return resized.clip(0, 255) if self.kernel == "bicubic" else resized

    def _taps(self, old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
        return _taps(old, new, self.kernel, self.antialias, self.half_pixel)


@functools.lru_cache(maxsize=32)
def _taps(
    old: int, new: int, kernel: Kernel, antialias: bool, half_pixel: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Source pixels of each new pixel, int64 `[new, taps]`, and their weights, float32."""
    scale = old / new
    stretch = max(scale, 1.0) if antialias else 1.0
    reach = _REACH[kernel] * stretch
    centers = (np.arange(new) + 0.5) * scale - 0.5 if half_pixel else np.arange(new) * scale
    first = np.floor(centers - reach).astype(np.int64) + 1
    index = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 1)
    weights = _weigh(np.abs(index - centers[:, None]) / stretch, kernel)
    if antialias:
        # Pixels outside do not count; without antialiasing the border is repeated.
        weights = weights * ((index >= 0) & (index < old))
    weights /= weights.sum(axis=1, keepdims=True)
    return index.clip(0, old - 1), weights.astype(np.float32)


def _weigh(distance: np.ndarray, kernel: Kernel) -> np.ndarray:
    if kernel == "bilinear":
        return (1 - distance).clip(min=0)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _gather(frame: np.ndarray, index: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of the rows of a frame."""
    total = np.zeros((len(index), *frame.shape[1:]), np.float32)
    for tap in range(index.shape[1]):
        if weights[:, tap].any():
            total += weights[:, tap, None, None] * frame[index[:, tap]]
    return total
