"""Pixel batches for training an autoencoder, from a MagicData folder or drawn on the fly."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

import numpy as np

from flashmotion_jax.data.batches import Array, Batches
from flashmotion_jax.data.magicdata import Example, MagicData
from flashmotion_jax.data.sprites import VERSION, Clip, Sprites, draw_maps
from flashmotion_jax.runtime.hashing import file_sha256


class PixelBatch(NamedTuple, Generic[Array]):
    """B videos and their trajectory maps, uint8 `[B, F, H, W, 3]` each.

    Attributes:
      video: Frames of the videos.
      masks: Maps of the objects' masks.
      boxes: Maps of the objects' boxes.
    """

    video: Array
    masks: Array
    boxes: Array


def pixel_batches(source: MagicData | Sprites, **options: Any) -> Batches[PixelBatch]:
    """Iterates over batches of a MagicData folder or of Sprites.

    Args:
      source: A MagicData folder, or Sprites.
      **options: See `data.batches.Batches`.
    """
    if isinstance(source, Sprites):
        fingerprint = f"{source!r}, version {VERSION}"
    else:
        fingerprint = file_sha256(source.csv)
    return Batches(source, pixel_example, fingerprint=fingerprint, **options)


def pixel_example(example: Example | Clip) -> PixelBatch[np.ndarray]:
    """Converts an example to a batch without the first dimension."""
    if isinstance(example, Clip):
        return PixelBatch(example.video, *draw_maps(example))
    return PixelBatch(example.video, example.masks, example.boxes)
