"""Flash attention for NVIDIA Hopper and Blackwell: the Mosaic GPU kernel of tokamax.

Source: `tokamax.dot_product_attention`, https://github.com/openxla/tokamax.
"""

from __future__ import annotations

import importlib.util
import logging

import jax

from flashmotion_jax.runtime.errors import UserError


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

    try:
        # By name: the default falls back to plain XLA, with a matrix of all scores.
        return tokamax.dot_product_attention(q_BNAE, k_BSAE, v_BSAE, implementation="mosaic")
    except NotImplementedError as error:
        raise UserError(
            f"this device has no attention kernel of tokamax ({str(error)[:120]}); expected an "
            "NVIDIA GPU from H100 on; leave out --attention tokamax to use cuDNN"
        ) from error
