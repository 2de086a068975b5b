"""Inception v3 as FID uses it: TensorFlow's graph of 2015, up to its last pooling.

Source: Szegedy et al., Rethinking the Inception Architecture (2016). The graph differs from
torchvision's as pytorch-fid lists: average pooling does not count the padding, and the last block
uses max pooling.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from flashmotion_jax.evaluation.features.feature_layers import FrozenConv, average_pool, max_pool

EPS = 1e-3


@dataclasses.dataclass(frozen=True)
class Step:
    """A convolution of a branch: its name in PyTorch, output channels, kernel, stride."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1

    @property
    def padding(self) -> str:
        """Only convolutions of stride 1 are padded."""
        return "SAME" if self.stride == 1 else "VALID"


#: Pooling in place of a convolution.
AVERAGE, MAXIMUM, MAXIMUM_BY_2 = "average", "maximum", "maximum by 2"

#: Steps in sequence; a tuple of branches in place of a step runs in parallel.
Branch = tuple[object, ...]

STEM = (
    Step("Conv2d_1a_3x3", 32, (3, 3), 2),
    Step("Conv2d_2a_3x3", 32, (3, 3)),
    Step("Conv2d_2b_3x3", 64, (3, 3)),
    MAXIMUM_BY_2,
    Step("Conv2d_3b_1x1", 80),
    Step("Conv2d_4a_3x3", 192, (3, 3)),
    MAXIMUM_BY_2,
)
#: Convolutions of the stem that have stride 1 but no padding.
_VALID = ("Conv2d_2a_3x3", "Conv2d_4a_3x3")


def _block_a(pooled: int) -> tuple[Branch, ...]:
    return (
        (Step("branch1x1", 64),),
        (Step("branch5x5_1", 48), Step("branch5x5_2", 64, (5, 5))),
        (
            Step("branch3x3dbl_1", 64),
            Step("branch3x3dbl_2", 96, (3, 3)),
            Step("branch3x3dbl_3", 96, (3, 3)),
        ),
        (AVERAGE, Step("branch_pool", pooled)),
    )


def _block_c(inner: int) -> tuple[Branch, ...]:
    return (
        (Step("branch1x1", 192),),
        (
            Step("branch7x7_1", inner),
            Step("branch7x7_2", inner, (1, 7)),
            Step("branch7x7_3", 192, (7, 1)),
        ),
        (
            Step("branch7x7dbl_1", inner),
            Step("branch7x7dbl_2", inner, (7, 1)),
            Step("branch7x7dbl_3", inner, (1, 7)),
            Step("branch7x7dbl_4", inner, (7, 1)),
            Step("branch7x7dbl_5", 192, (1, 7)),
        ),
        (AVERAGE, Step("branch_pool", 192)),
    )


def _block_e(pool: str) -> tuple[Branch, ...]:
    def split(name: str) -> tuple[Branch, ...]:
        return (Step(f"{name}a", 384, (1, 3)),), (Step(f"{name}b", 384, (3, 1)),)

    return (
        (Step("branch1x1", 320),),
        (Step("branch3x3_1", 384), split("branch3x3_2")),
        (
            Step("branch3x3dbl_1", 448),
            Step("branch3x3dbl_2", 384, (3, 3)),
            split("branch3x3dbl_3"),
        ),
        (pool, Step("branch_pool", 192)),
    )


BLOCKS: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": (
        (Step("branch3x3", 384, (3, 3), 2),),
        (
            Step("branch3x3dbl_1", 64),
            Step("branch3x3dbl_2", 96, (3, 3)),
            Step("branch3x3dbl_3", 96, (3, 3), 2),
        ),
        (MAXIMUM_BY_2,),
    ),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": (
        (Step("branch3x3_1", 192), Step("branch3x3_2", 320, (3, 3), 2)),
        (
            Step("branch7x7x3_1", 192),
            Step("branch7x7x3_2", 192, (1, 7)),
            Step("branch7x7x3_3", 192, (7, 1)),
            Step("branch7x7x3_4", 192, (3, 3), 2),
        ),
        (MAXIMUM_BY_2,),
    ),
    "Mixed_7b": _block_e(AVERAGE),
    "Mixed_7c": _block_e(MAXIMUM),
}


class Inception(nnx.Module):
    """Inception v3 without its classifier.

    Args:
      divide: Divides all channels, for tests; the published network has 1.
    """

    def __init__(self, divide: int = 1):
        self._divide = divide
        self.stem = nnx.Dict()
        channels = self._build(self.stem, STEM, 3)
        self.blocks = nnx.Dict()
        for name, branches in BLOCKS.items():
            self.blocks[name] = convs = nnx.Dict()
            channels = sum(self._build(convs, branch, channels) for branch in branches)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """Computes the features of images.

        Args:
          x_BHWC: float32 `[B, H, W, 3]` in about -1..1, 299 x 299 as trained.

        Returns:
          float32 `[B, 2048]`.
        """
        x = _apply(self.stem, STEM, x_BHWC)
        for name, branches in BLOCKS.items():
            x = jnp.concatenate([_apply(self.blocks[name], one, x) for one in branches], axis=-1)
        return x.mean(axis=(1, 2))

    def _build(self, convs: nnx.Dict, branch: Branch, channels: int) -> int:
        """Adds the convolutions of a branch, and returns its output channels."""
        for step in branch:
            if isinstance(step, Step):
                convs[step.name] = FrozenConv(
                    channels,
                    step.channels // self._divide,
                    step.kernel,
                    strides=(step.stride,) * 2,
                    padding="VALID" if step.name in _VALID else step.padding,
                    eps=EPS,
                )
                channels = step.channels // self._divide
            elif isinstance(step, tuple):
                channels = sum(self._build(convs, part, channels) for part in step)
        return channels


def _apply(convs: nnx.Dict, branch: Branch, x: jax.Array) -> jax.Array:
    for step in branch:
        if isinstance(step, Step):
            x = convs[step.name](x)
        elif isinstance(step, tuple):
            x = jnp.concatenate([_apply(convs, part, x) for part in step], axis=-1)
        elif step == AVERAGE:
            x = average_pool(x, (3, 3), "SAME")
        else:
            stride, padding = (2, "VALID") if step == MAXIMUM_BY_2 else (1, "SAME")
            x = max_pool(x, (3, 3), (stride, stride), padding)
    return x
