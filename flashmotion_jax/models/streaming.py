"""Video autoencoders that process a video as a stream of chunks, with the result of the whole.

Every causal operation takes the frames before its chunk from the `Stream` and stores its own last
frames there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from einops import rearrange

from flashmotion_jax.runtime.sharding import split_like

Past = tuple[jax.Array, ...]
"""The frames that the next chunk needs of the previous ones, see `Stream`."""


class Stream:
    """Past frames of every causal operation, in the order of the operations.

    Attributes:
      is_first: Whether this is the first chunk.
      future: The past of the next chunk.
    """

    def __init__(self, past: Sequence[jax.Array] | None = None):
        self.is_first = past is None
        self._past = iter(past or ())
        self.future: list[jax.Array] = []

    def extend(self, x_BTHWC: jax.Array, num_frames: int) -> jax.Array:
        """Prepends the last `num_frames` frames of the past, or zeros, to `x_BTHWC`."""
        if self.is_first:
            padding = [(0, 0), (num_frames, 0), (0, 0), (0, 0), (0, 0)]
            x_BTHWC = jnp.pad(x_BTHWC, padding)
        else:
            x_BTHWC = jnp.concatenate([next(self._past), x_BTHWC], axis=1)
        self.remember(x_BTHWC[:, -num_frames:])
        return x_BTHWC

    def remember(self, frames_BTHWC: jax.Array) -> None:
        """Stores frames for the next chunk."""
        self.future.append(frames_BTHWC)


def scan_chunks(
    code: Callable[[jax.Array, Past | None], tuple[jax.Array, Past]],
    x_BFHWC: jax.Array,
    num_frames: int,
    first: int = 1,
) -> jax.Array:
    """Encodes or decodes a whole video, chunk by chunk.

    Args:
      code: Maps a chunk and its past, None for the first, to a result and the next past.
      x_BFHWC: Frames of a video or of latents.
      num_frames: Frames of each chunk after the first; they must divide the rest of the frames.
      first: Frames of the first chunk.

    Returns:
      The results, concatenated along time.
    """
    head, past = code(x_BFHWC[:, :first], None)
    if x_BFHWC.shape[1] == first:
        return head
    chunks = rearrange(x_BFHWC[:, first:], "b (n f) h w c -> n b f h w c", f=num_frames)

    def one_chunk(past: Past, chunk: jax.Array) -> tuple[Past, jax.Array]:
        out, past = code(chunk, past)
        return past, out

    _, tail = jax.lax.scan(one_chunk, past, chunks)
    tail = rearrange(tail, "n b f h w c -> b (n f) h w c")
    return jnp.concatenate([head, split_like(tail, head)], axis=1)
