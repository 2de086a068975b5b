"""I3D trained on Kinetics-400, the network of FVD.

Source: Carreira and Zisserman, Quo Vadis, Action Recognition (2017); Unterthiner et al., Towards
Accurate Generative Models of Video (2018) for the logits as features.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from flashmotion_jax.evaluation.features.feature_layers import FrozenConv, average_pool, max_pool

#: With fewer frames, less than the two time steps of the last pooling window are left.
MIN_FRAMES = 9

#: Channels of b0, b1a, b1b, b2a, b2b, b3b of each block.
_BLOCKS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}

#: Window and strides of the max pooling before a block.
_POOLS = {
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


class I3D(nnx.Module):
    """I3D with its classifier.

    Args:
      eps: Epsilon of batch normalization, in which ports of the weights differ.
      divide: Divides all channels but the classes, for tests; the published network has 1.
      classes: Number of logits; Kinetics has 400.
    """

    def __init__(self, eps: float = 1e-5, divide: int = 1, classes: int = 400):
        def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> FrozenConv:
            return FrozenConv(
                inputs,
                outputs,
                (kernel,) * 3,
                strides=(stride,) * 3,
                padding="SAME",
                eps=eps,
            )

        self.stem = nnx.Dict(
            Conv3d_1a_7x7=conv(3, 64 // divide, 7, 2),
            Conv3d_2b_1x1=conv(64 // divide, 64 // divide),
            Conv3d_2c_3x3=conv(64 // divide, 192 // divide, 3),
        )
        self.blocks = nnx.Dict()
        channels = 192 // divide
        for name, widths in _BLOCKS.items():
            b0, b1a, b1b, b2a, b2b, b3b = (width // divide for width in widths)
            self.blocks[name] = nnx.Dict(
                b0=conv(channels, b0),
                b1a=conv(channels, b1a),
                b1b=conv(b1a, b1b, 3),
                b2a=conv(channels, b2a),
                b2b=conv(b2a, b2b, 3),
                b3b=conv(channels, b3b),
            )
            channels = b0 + b1b + b2b + b3b
        self.logits = FrozenConv(
            channels,
            classes,
            (1, 1, 1),
            strides=(1, 1, 1),
            padding="SAME",
            eps=eps,
            activate=False,
        )

    def __call__(self, x_BFHWC: jax.Array) -> jax.Array:
        """Computes the logits of videos.

        Args:
          x_BFHWC: float32 `[B, F, 224, 224, 3]` in -1..1, F at least `MIN_FRAMES`.

        Returns:
          float32 `[B, classes]`, averaged over time.
        """
        x = self.stem["Conv3d_1a_7x7"](x_BFHWC)
        x = max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
        x = self.stem["Conv3d_2c_3x3"](self.stem["Conv3d_2b_1x1"](x))
        for name in _BLOCKS:
            if name in _POOLS:
                x = max_pool(x, *_POOLS[name], "SAME")
            x = _mixed(self.blocks[name], x)
        return self.logits(average_pool(x, (2, 7, 7), "VALID")).mean(axis=(1, 2, 3))


def _mixed(block: nnx.Dict, x: jax.Array) -> jax.Array:
    pooled = max_pool(x, (3, 3, 3), (1, 1, 1), "SAME")
    branches = [
        block["b0"](x),
        block["b1b"](block["b1a"](x)),
        block["b2b"](block["b2a"](x)),
        block["b3b"](pooled),
    ]
    return jnp.concatenate(branches, axis=-1)
