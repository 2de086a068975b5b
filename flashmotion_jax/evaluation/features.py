"""Features of frames and videos for FID and FVD, and every choice that they depend on.

Frames are resized on the host, one at a time, and go through a network in batches of one size, so
that neither a long video nor a large one is ever held, and one program serves all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import jax.numpy as jnp
import numpy as np

from flashmotion_jax.compilation import program
from flashmotion_jax.evaluation.resizing import Resize
from flashmotion_jax.models.i3d import MIN_FRAMES
from flashmotion_jax.models.metric_networks import Network, file_digest, find_network, load_network


@dataclass(frozen=True)
class Preset:
    """How features are made.

    Attributes:
      network: "inception", of every frame, or "i3d", of every video.
      resize: kernel, antialiasing, centres, crop and size.
      centre: what becomes 0, of pixels in 0..255.
      half_range: pixels from there to 1.
      features: what of the network.
      frames: which of a video.
      eps: of I3D's batch normalisation, in which ports of the weights differ.
    """

    network: Network
    resize: Resize
    centre: float
    half_range: float
    features: str
    frames: Literal["all"] = "all"
    eps: float | None = None


_POOLED = "2048, the last average pooling"
_LOGITS = "400 logits, means over time"

PRESETS: dict[str, Preset] = {
    # As pytorch-fid and torchmetrics without antialiasing compute it.
    "pytorch-fid": Preset("inception", Resize(299), 127.5, 127.5, _POOLED),
    # As torch-fidelity and the first FID, TensorFlow 1, compute it.
    "torch-fidelity": Preset("inception", Resize(299, half_pixel=False), 128, 128, _POOLED),
    # As clean-fid computes it, with Pillow's bicubic kernel.
    "clean-fid": Preset("inception", Resize(299, "bicubic", antialias=True), 128, 128, _POOLED),
    # As the first FVD, VideoGPT and cd-fvd compute it: the aspect ratio is not kept.
    "videogpt": Preset("i3d", Resize(224), 127.5, 127.5, _LOGITS, eps=1e-5),
    # The frames of StyleGAN-V: the shorter side to 224, the centre of the longer one.
    "stylegan-v": Preset("i3d", Resize(224, crop="centre"), 127.5, 127.5, _LOGITS, eps=1e-5),
}

FID_PRESETS = tuple(name for name, preset in PRESETS.items() if preset.network == "inception")
FVD_PRESETS = tuple(name for name, preset in PRESETS.items() if preset.network == "i3d")


class Extractor:
    """Makes the features of a preset.

    Args:
      preset: a name of `PRESETS`.
      weights: file of the network, or a folder that holds it.
      batch_size: frames that go through Inception together; it changes no result by more than
        rounding. I3D takes a video at a time.

    Attributes:
      preset: the choices.
      file: of the weights; its name holds its sha256.

    Raises:
      ValueError: the preset is unknown, or there are no such weights.
    """

    def __init__(self, preset: str, weights: str | Path, batch_size: int = 16):
        if preset not in PRESETS or batch_size < 1:
            raise ValueError(
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
        """The sha256 of the weights."""
        return file_digest(self.file)

    def __call__(self, frames: Iterable[np.ndarray]) -> np.ndarray:
        """The features of a video.

        Args:
          frames: uint8 `[H, W, 3]`, of any size.

        Returns:
          float32 `[F, 2048]` of Inception, `[1, 400]` of I3D.

        Raises:
          ValueError: there are no frames, or fewer than I3D can look at.
        """
        preset = self.preset
        resized = (preset.resize(frame) for frame in frames)
        if preset.network == "inception":
            return self._of_frames(resized)
        size = preset.resize.size
        # Kept as bytes would round what was resized; as float32 121 frames are 73 MB.
        video = np.array(list(resized), np.float32).reshape(-1, size, size, 3)
        if len(video) < MIN_FRAMES:
            raise ValueError(f"{len(video)} frames; I3D, which FVD is of, needs {MIN_FRAMES}")
        return np.asarray(self._compute(video[None]))

    def _of_frames(self, frames: Iterable[np.ndarray]) -> np.ndarray:
        features, batch = [], []
        for frame in frames:
            batch.append(frame)
            if len(batch) == self._batch_size:
                features.append(np.asarray(self._compute(np.stack(batch))))
                batch = []
        if batch:
            # Filled up, so that all have one program.
            missing = self._batch_size - len(batch)
            full = np.stack(batch + [np.zeros_like(batch[0])] * missing)
            features.append(np.asarray(self._compute(full))[: len(batch)])
        if not features:
            raise ValueError("a video without frames has no features")
        return np.concatenate(features)

    def _compute(self, pixels: np.ndarray) -> Any:
        preset = self.preset
        scaled = (jnp.asarray(pixels) - preset.centre) / preset.half_range
        return _apply(cast(Any, self._module), scaled)


@program
def _apply(module: Any, x: Any) -> Any:
    return module(x)
