"""How steady a video is: flicker, and what changes where no object is. Three frames are held.

Both are in levels of 0..255. Motion is no flicker: a pixel that an edge passes goes from one value
to another and stays. Neither says by itself that a video is good; a still one has none of both, so
they stand beside those of the real video.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from flashmotion_jax.runtime.errors import UserError


class Steadiness:
    """Takes the frames of a video one after the other, with where its objects are."""

    def __init__(self):
        self._frames: deque[np.ndarray] = deque(maxlen=3)
        self._objects: np.ndarray | None = None
        self._flicker: list[float] = []
        self._change: list[float] = []

    def add(self, frame: np.ndarray, objects_HW: np.ndarray | None = None) -> None:
        """Takes the next frame.

        Args:
          frame: uint8 `[H, W, 3]`.
          objects_HW: bool, of any size; None where it is not known, and the change is not measured.
        """
        frame = frame.astype(np.int16)
        if objects_HW is not None:
            objects_HW = nearest(objects_HW, *frame.shape[:2])
        if self._frames and self._frames[-1].shape != frame.shape:
            raise UserError(
                f"frames of {self._frames[-1].shape[:2]} and {frame.shape[:2]} in one video"
            )
        self._change.append(self._changed(frame, objects_HW))
        self._frames.append(frame)
        self._objects = objects_HW
        if len(self._frames) == 3:
            before, middle, after = self._frames
            up = np.minimum(middle - before, middle - after)
            down = np.minimum(before - middle, after - middle)
            self._flicker.append(float((up.clip(min=0) + down.clip(min=0)).mean()))

    def flicker(self) -> np.ndarray:
        """Of each frame, float64 [F]; NaN of the first and the last."""
        values = np.full(len(self._change), np.nan)
        values[1 : 1 + len(self._flicker)] = self._flicker
        return values

    def background_change(self) -> np.ndarray:
        """From the frame before to each, float64 [F]; NaN of the first, and without background."""
        return np.array(self._change, np.float64)

    def _changed(self, frame: np.ndarray, objects_HW: np.ndarray | None) -> float:
        if not self._frames or objects_HW is None or self._objects is None:
            return np.nan
        background = ~(objects_HW | self._objects)
        if not background.any():
            return np.nan
        return float(np.abs(frame - self._frames[-1])[background].mean())


def nearest(mask_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask at another size, each pixel that of the nearest centre."""
    rows = (2 * np.arange(height) + 1) * mask_HW.shape[-2] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask_HW.shape[-1] // (2 * width)
    return mask_HW[..., rows[:, None], columns]
