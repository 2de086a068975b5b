"""Batches of pixels for training an autoencoder: of a MagicData folder, or drawn when read."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

import numpy as np

from flashmotion_jax.data.batches import Array, Batches
from flashmotion_jax.data.latent_cache import sha256
from flashmotion_jax.data.magicdata import Example, MagicData
from flashmotion_jax.data.sprites import VERSION, Clip, Sprites, draw_maps


class PixelBatch(NamedTuple, Generic[Array]):
    """B videos with their maps, uint8 `[B, F, H, W, 3]` each.

    Attributes:
      video: what is seen.
      masks: maps of the objects' masks.
      boxes: maps of their boxes.
    """

    video: Array
    masks: Array
    boxes: Array


def pixel_batches(source: MagicData | Sprites, **options: Any) -> Batches[PixelBatch]:
    """Batches of a MagicData folder or of Sprites.

    Args:
      source: what to read or draw.
      **options: see `data.batches.Batches`.
    """
    if isinstance(source, Sprites):
        fingerprint = f"{source!r}, version {VERSION}"
    else:
        fingerprint = sha256(source.csv)
    return Batches(source, pixel_example, fingerprint=fingerprint, **options)


def pixel_example(example: Example | Clip) -> PixelBatch[np.ndarray]:
    """A video as a batch without its first dimension."""
    if isinstance(example, Clip):
        return PixelBatch(example.video, *draw_maps(example))
    return PixelBatch(example.video, example.masks, example.boxes)
