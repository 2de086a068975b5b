"""Features of frames and videos for FID and FVD.

Frames are resized on the host, one at a time, and go through a network in batches of one size, so
that neither a long nor a large video is ever held whole, and one compiled program serves all.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from flashmotion_jax.evaluation.features.i3d import MIN_FRAMES
from flashmotion_jax.evaluation.features.presets import PRESETS
from flashmotion_jax.evaluation.features.weight_files import find_network, load_network
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.hashing import file_sha256
from flashmotion_jax.runtime.jit import program


class Extractor:
    """Computes the features of a preset.

    Args:
      preset: A name in `PRESETS`.
      weights: File of the network, or a folder that holds it.
      batch_size: Frames that go through Inception together. It changes results by no more than
        rounding. I3D takes one video at a time.

    Attributes:
      preset: The choices of the preset.
      file: File of the weights, whose name holds its SHA-256.

    Raises:
      UserError: The preset is unknown, or there are no such weights.
    """

    def __init__(self, preset: str, weights: str | Path, batch_size: int = 16):
        if preset not in PRESETS or batch_size < 1:
            raise UserError(
                f"preset={preset!r}, batch_size={batch_size}; expected one of {', '.join(PRESETS)} "
                "and at least 1"
            )
        self.preset = PRESETS[preset]
        self.file = find_network(weights, self.preset.network)
        options: dict[str, Any] = {} if self.preset.eps is None else {"eps": self.preset.eps}
        self._module = load_network(self.file, self.preset.network, **options)
        self._batch_size = batch_size

    @property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        return file_sha256(self.file)

    def __call__(self, frames: Iterable[np.ndarray]) -> np.ndarray:
        """Computes the features of a video.

        Args:
          frames: uint8 `[H, W, 3]`, of any size.

        Returns:
          float32 `[F, 2048]` of Inception, `[1, 400]` of I3D.

        Raises:
          UserError: There are no frames, or fewer than I3D needs.
        """
        preset = self.preset
        resized = (preset.resize(frame) for frame in frames)
        if preset.network == "inception":
            return self._of_frames(resized)
        size = preset.resize.size
        # In float32, because bytes would round the resized pixels: 73 MB for 121 frames.
        video = np.array(list(resized), np.float32).reshape(-1, size, size, 3)
        if len(video) < MIN_FRAMES:
            raise UserError(f"{len(video)} frames; I3D, the network of FVD, needs {MIN_FRAMES}")
        return np.asarray(self._compute(video[None]))

    def _of_frames(self, frames: Iterable[np.ndarray]) -> np.ndarray:
        features, batch = [], []
        for frame in frames:
            batch.append(frame)
            if len(batch) == self._batch_size:
                features.append(np.asarray(self._compute(np.stack(batch))))
                batch = []
        if batch:
            # Padded, so that all batches run the same compiled program.
            missing = self._batch_size - len(batch)
            full = np.stack(batch + [np.zeros_like(batch[0])] * missing)
            features.append(np.asarray(self._compute(full))[: len(batch)])
        if not features:
            raise UserError("a video without frames has no features")
        return np.concatenate(features)

    def _compute(self, pixels: np.ndarray) -> Any:
        preset = self.preset
        scaled = (jnp.asarray(pixels) - preset.center) / preset.half_range
        return _apply(cast(Any, self._module), scaled)


@program
def _apply(module: Any, x: Any) -> Any:
    return module(x)
