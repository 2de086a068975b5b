"""Flash attention for NVIDIA Hopper and Blackwell: the Mosaic GPU kernel of tokamax.

Source: `tokamax.dot_product_attention`, https://github.com/openxla/tokamax.
"""

from __future__ import annotations

import importlib.util
import logging

import jax
import jax.numpy as jnp

from flashmotion_jax.runtime.errors import UserError

#: The kernel, and that of its gradient, copy tokens in tiles of so many.
TILE = 8


def prepare_tokamax() -> None:
    """Imports the package, so that it neither reads the command line nor warns at each trace.

    Raises:
      ImportError: It is not installed.
    """
    if importlib.util.find_spec("tokamax") is None:
        raise ImportError(
            "attention with tokamax needs a package: pip install 'flashmotion_jax[tokamax]'",
            name="tokamax",
        )
    import tokamax  # noqa: F401  # pyrefly: ignore[missing-import]
    from absl import flags  # pyrefly: ignore[missing-import]

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # it would parse the options of our commands as its own
    # The warnings say that block sizes are not tuned for the shape.
    logging.getLogger("absl").setLevel(logging.ERROR)


def tokamax_attention(q_BNAE: jax.Array, k_BSAE: jax.Array, v_BSAE: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(E)) v, scores and sums in float32, for any number of tokens.

    Args:
      q_BNAE: Queries, bfloat16 or float16.
      k_BSAE: Keys, likewise.
      v_BSAE: Values, likewise.

    Returns:
      `[B, N, A, E]` in the dtype of the queries.

    Raises:
      UserError: The device has no such kernel.
    """
    import tokamax  # pyrefly: ignore[missing-import]

    num_keys, lengths = k_BSAE.shape[1], None
    if num_keys % TILE:
        lengths = jnp.full(k_BSAE.shape[0], num_keys, jnp.int32)
    padded = (_pad(x) for x in (q_BNAE, k_BSAE, v_BSAE))
    try:
        # By name: the default falls back to plain XLA, with a matrix of all scores.
        out = tokamax.dot_product_attention(
            *padded, key_value_seq_lengths=lengths, implementation="mosaic"
        )
    except NotImplementedError as error:
        raise UserError(
            f"this device has no attention kernel of tokamax ({str(error)[:120]}); expected an "
            "NVIDIA GPU from H100 on; leave out --attention tokamax to use cuDNN"
        ) from error
    return out[:, : q_BNAE.shape[1]]


def _pad(x_BNAE: jax.Array) -> jax.Array:
    return jnp.pad(x_BNAE, ((0, 0), (0, -x_BNAE.shape[1] % TILE), (0, 0), (0, 0)))
