"""Pixel batches for training an autoencoder, from a MagicData folder or drawn on the fly."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

import numpy as np

from flashmotion_jax.data.batches import Array, Batches
from flashmotion_jax.data.examples import DrawnSprites
from flashmotion_jax.data.magicdata import Example, MagicData


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


def pixel_batches(source: MagicData | DrawnSprites, **options: Any) -> Batches[PixelBatch]:
    """Iterates over batches of a MagicData folder or of Sprites.

    Args:
      source: A MagicData folder, or Sprites.
      **options: See `data.batches.Batches`.
    """
    return Batches(source, pixel_example, fingerprint=source.fingerprint, **options)


def pixel_example(example: Example, rng: np.random.Generator) -> PixelBatch[np.ndarray]:
    """Converts an example to a batch without the first dimension."""
    del rng  # nothing is drawn
    return PixelBatch(example.video, example.masks, example.boxes)
