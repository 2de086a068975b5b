"""The frames on which a sparse adapter knows the trajectory, and the maps that it is given there.

Latent frame t stands for the frames up to `t * factor`. One is known if any of its frames is, and
its map shows where the objects are on its last frame: that is what adapters are trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import Trajectory

FrameChoice = Sequence[int] | Literal["all"] | None
"""Frame numbers, all frames, or None for those that the trajectory itself names."""


def drawn_throughout(motion: Any) -> Any:
    """Returns a trajectory with every frame drawn; maps stay as they are."""
    if isinstance(motion, Trajectory):
        return dataclasses.replace(motion, sparse_frames=None)
    return motion


def know_some_frames(
    motions: Sequence[Any], maps: np.ndarray, choice: FrameChoice, factor: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hides the maps of frames that are not known.

    Args:
      motions: The trajectory, or maps, of each video.
      maps: uint8 `[B, F, H, W, 3]`, drawn on all frames.
      choice: Frames that are known. By default those of `Trajectory.known`, and of maps the ones
        that are not black.
      factor: Frames per latent frame after the first.

    Returns:
      uint8 `[B, F, H, W, 3]`, black but for the last frame of each known latent frame; and which
      are known, bool `[B, T]`.

    Raises:
      UserError: A frame is not one of the video, or there are none.
    """
    num_frames = maps.shape[1]
    if choice is not None and choice != "all":
        _check(choice, num_frames)
    hidden, known = np.zeros_like(maps), []
    for motion, maps_FHW3, hidden_FHW3 in zip(motions, maps, hidden, strict=True):
        is_drawn_F = maps_FHW3.any(axis=(1, 2, 3))
        if choice == "all":
            frames = np.arange(num_frames)
        elif choice is not None:
            frames = np.array(choice)
        elif isinstance(motion, Trajectory):
            frames = np.flatnonzero(motion.known(num_frames))
        else:
            frames = np.flatnonzero(is_drawn_F)
        last_T = np.arange(0, num_frames, factor)
        known_T = np.isin(last_T, -(-frames // factor) * factor)
        for last in last_T[known_T]:
            shown = last
            if not isinstance(motion, Trajectory):
                # Maps may be black on the last frame and show boxes on another one.
                drawn = np.flatnonzero(is_drawn_F[max(last - factor + 1, 0) : last + 1][::-1])
                shown = last - (drawn[0] if drawn.size and last else 0)
            hidden_FHW3[last] = maps_FHW3[shown]
        known.append(known_T)
    return hidden, np.stack(known)


def _check(frames: Sequence[int], num_frames: int) -> None:
    wrong = [f for f in frames if not isinstance(f, int | np.integer) or not 0 <= f < num_frames]
    if wrong or not len(frames):
        found = f"frame {wrong[0]!r}" if wrong else "none"
        raise UserError(
            f"known_frames: {found}; expected frames of the video, whole numbers from 0 to "
            f"{num_frames - 1}, or 'all'"
        )
