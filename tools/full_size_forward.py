"""One forward pass of the 5 B DiT in bfloat16, with random weights; prints time and peak memory.

Run by `tests/models/test_dit.py` in a separate process, to measure its own peak memory.
"""

from __future__ import annotations

import json
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashmotion_jax.config import DiTConfig
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime.jit import program


def random_weights(param, rng):
    """Draws a weight one layer at a time, because the whole stack in float32 would be too large."""
    shape, dtype = param.shape, param.dtype
    weights = np.empty(shape, dtype)
    fan_in = shape[-2] if len(shape) > 1 else 1
    for layer in weights if len(shape) == 3 else [weights]:
        layer[...] = rng.standard_normal(layer.shape, np.float32) / np.sqrt(fan_in)
    return jnp.asarray(weights)


def main():
    policy = Policy(jnp.bfloat16, jnp.bfloat16)
    abstract = nnx.eval_shape(lambda: DiT(DiTConfig(), policy=policy, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    dit = jax.tree.map(lambda param: random_weights(param, rng), abstract)
    # 9 frames of 128 x 128: 3 latent frames of 8 x 8, 48 tokens.
    latents = jnp.asarray(rng.standard_normal((1, 3, 8, 8, 48), np.float32))
    timesteps = jnp.array([[0.0, 900.0, 900.0]])
    text = jnp.asarray(rng.standard_normal((1, 512, 4096), np.float32))
    forward = program(lambda dit, *inputs: dit(*inputs))
    start = time.perf_counter()
    velocity = np.asarray(forward(dit, latents, timesteps, text))
    seconds = time.perf_counter() - start
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "shape": velocity.shape,
                "finite": bool(np.isfinite(velocity).all()),
                "std": float(velocity.std()),
                "compile_and_run_seconds": round(seconds, 1),
                "peak_gb": round(peak_bytes / 1e9, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
