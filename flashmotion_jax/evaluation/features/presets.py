"""Presets of FID and FVD: how features are computed, named after who did so first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flashmotion_jax.evaluation.features.resizing import Resize


@dataclass(frozen=True)
class Preset:
    """How features are computed.

    Attributes:
      network: "inception", of every frame, or "i3d", of every video.
      resize: How frames are resized.
      center: Pixel value in 0..255 that is mapped to 0.
      half_range: Difference of pixel values that is mapped to 1.
      features: The output of the network that is used.
      frames: The frames of a video that are used.
      eps: Epsilon of I3D's batch normalization, in which ports of the weights differ.
    """

    network: Literal["inception", "i3d"]
    resize: Resize
    center: float
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
    # As StyleGAN-V takes frames: the shorter side to 224, the center of the longer one.
    "stylegan-v": Preset("i3d", Resize(224, crop="center"), 127.5, 127.5, _LOGITS, eps=1e-5),
}

FID_PRESETS = tuple(name for name, preset in PRESETS.items() if preset.network == "inception")
FVD_PRESETS = tuple(name for name, preset in PRESETS.items() if preset.network == "i3d")
