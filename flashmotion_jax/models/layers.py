"""The layers that every model is built from. Parameters carry logical axis names.

The metadata `axes` of a parameter names its dimensions; `runtime.sharding` maps the names to mesh
axes. Weights of matmuls and convolutions follow the model's `Policy`; norms are float32.

Dimension letters: B batch, F pixel frames, T latent frames, H W space, P tokens of one frame,
N = T * P tokens, S text tokens, C channels, D model width, A heads, E head width, M mlp width,
L layers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.lax import broadcast_to_rank
from jax.typing import DTypeLike

from flashmotion_jax.models.convolution import convolve
from flashmotion_jax.models.eight_bits import (
    FORMATS,
    EightBitEmbed,
    EightBitLinear,
    a_few_frames_at_a_time,
)
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import split_batch_like

Module = TypeVar("Module", bound=nnx.Module)
Result = TypeVar("Result")

#: Name -> `jax.checkpoint` policy: what a forward pass saves of a block for the backward pass.
REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class Policy:
    """Dtypes of matmuls, attention and convolutions, and rematerialization.

    Everything else computes in float32.

    Attributes:
      compute: Dtype that operands are cast to.
      params: Dtype that weights are stored in; trained weights are float32. With "int8" or "fp8",
        linear layers of blocks and tables are in 8 bits, see `eight_bits`.
      remat: What the backward pass recomputes: "none"; "full", everything in a block; or "dots",
        everything but the results of matmuls with weights.

    Raises:
      UserError: `remat` is unknown.
    """

    compute: DTypeLike = jnp.float32
    params: DTypeLike = jnp.float32
    remat: str = "none"

    def __post_init__(self) -> None:
        if self.remat not in ("none", *REMAT_POLICIES):
            raise UserError(
                f"remat={self.remat!r} is unknown; use one of {['none', *REMAT_POLICIES]}"
            )

    @property
    def without_eight_bits(self) -> Policy:
        """The policy of layers that 8 bits would harm or not speed up: floats instead."""
        is_float = str(self.params) not in FORMATS
        return self if is_float else dataclasses.replace(self, params=self.compute)


FLOAT32 = Policy()


def linear(
    in_dim: int,
    out_dim: int,
    axes: tuple[str | None, str | None],
    *,
    policy: Policy,
    rngs: nnx.Rngs,
    use_bias: bool = True,
    zero: bool = False,
) -> nnx.Linear:
    """A linear layer whose kernel `[in_dim, out_dim]` has the logical axes `axes`.

    With `zero`, kernel and bias start at zero, so that a residual layer is the identity at first.
    """
    return _eight_bits(nnx.Linear, EightBitLinear, policy)(
        in_dim,
        out_dim,
        use_bias=use_bias,
        dtype=policy.compute,
        param_dtype=policy.without_eight_bits.params,
        kernel_init=nnx.initializers.zeros if zero else nnx.initializers.lecun_normal(),
        kernel_metadata={"axes": axes},
        bias_metadata={"axes": axes[1:]},
        rngs=rngs,
    )


def embedding(
    num_embeddings: int,
    dim: int,
    axes: tuple[str | None, str | None],
    *,
    policy: Policy,
    rngs: nnx.Rngs,
) -> nnx.Embed:
    """An embedding table `[num_embeddings, dim]`, for `eight_bits.table_rows`."""
    return _eight_bits(nnx.Embed, EightBitEmbed, policy)(
        num_embeddings,
        dim,
        # A compute dtype would cast the whole table before every lookup.
        param_dtype=policy.without_eight_bits.params,
        embedding_metadata={"axes": axes},
        rngs=rngs,
    )


def _eight_bits(floats: Any, eight_bits: Any, policy: Policy) -> Callable[..., Any]:
    """The class of a layer by the policy's `params`."""
    to = FORMATS.get(str(policy.params))
    return functools.partial(eight_bits, to=to) if to else floats


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    policy: Policy,
    rngs: nnx.Rngs,
    strides: int | tuple[int, int] = 1,
    padding: Any = "SAME",
    use_bias: bool = True,
    groups: int = 1,
    zero: bool = False,
) -> nnx.Conv:
    """A 2-D convolution of images `[..., H, W, C]`; with `zero`, see `linear`."""
    return nnx.Conv(
        in_channels,
        out_channels,
        (kernel_size, kernel_size),
        strides=strides,
        padding=padding,
        use_bias=use_bias,
        feature_group_count=groups,
        dtype=policy.compute,
        param_dtype=policy.params,
        conv_general_dilated=convolve,
        kernel_init=nnx.initializers.zeros if zero else nnx.initializers.lecun_normal(),
        kernel_metadata={"axes": (None, None, "channels_in", "channels_out")},
        bias_metadata={"axes": ("channels_out",)},
        rngs=rngs,
    )


def layer_norm(dim: int, *, eps: float, affine: bool, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over the last dimension, computed and returned in float32."""
    return nnx.LayerNorm(
        dim,
        epsilon=eps,
        use_scale=affine,
        use_bias=affine,
        dtype=jnp.float32,
        # E[x^2] - E[x]^2 loses too many digits in float32 for a parity within 2e-5.
        use_fast_variance=False,
        scale_metadata={"axes": ("norm",)},
        bias_metadata={"axes": ("norm",)},
        rngs=rngs,
    )


def rms_norm(dim: int, *, eps: float, rngs: nnx.Rngs) -> nnx.RMSNorm:
    """RMSNorm over the last dimension, computed and returned in float32."""
    return nnx.RMSNorm(
        dim,
        epsilon=eps,
        dtype=jnp.float32,
        scale_metadata={"axes": ("norm",)},
        rngs=rngs,
    )


def group_norm(dim: int, num_groups: int, *, eps: float, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """GroupNorm of `[N, ..., dim]`: each group of channels over all positions, in float32."""
    return nnx.GroupNorm(
        dim,
        num_groups=num_groups,
        epsilon=eps,
        dtype=jnp.float32,
        use_fast_variance=False,
        scale_metadata={"axes": ("norm",)},
        bias_metadata={"axes": ("norm",)},
        rngs=rngs,
    )


def learned_rows(num_rows: int, dim: int, rngs: nnx.Rngs) -> nnx.Param[jax.Array]:
    """Learned float32 vectors `[num_rows, dim]`, used as offsets or queries."""
    value = jax.random.normal(rngs.params(), (num_rows, dim)) / math.sqrt(dim)
    return nnx.Param(value, axes=(None, "norm"))


def stack(make: Callable[[nnx.Rngs], Module], num_layers: int, rngs: nnx.Rngs) -> Module:
    """Stacks modules into one, whose parameters have a leading layer dimension, for `lax.scan`.

    Args:
      make: Builds one module from its own random streams.
      num_layers: Number of modules.
      rngs: Random streams for the initial values of all modules.
    """
    return jax.vmap(lambda key: make(nnx.Rngs(key)))(jax.random.split(rngs.params(), num_layers))


def remat(function: Callable[..., Result], policy: str) -> Callable[..., Result]:
    """Applies `jax.checkpoint` to the body of a scan, with a policy of `Policy.remat`."""
    if policy == "none":
        return function
    # Needless in a scan, where XLA cannot merge the passes, and it prevents optimizations.
    return jax.checkpoint(function, policy=REMAT_POLICIES[policy], prevent_cse=False)


class LowRank(nnx.Module):
    """The two matrices of a LoRA of a linear layer, whose product is zero at first."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        rank: int,
        axes: tuple[str | None, str | None],
        *,
        policy: Policy,
        rngs: nnx.Rngs,
    ):
        self.down = linear(in_dim, rank, (axes[0], None), policy=policy, rngs=rngs, use_bias=False)
        self.up = linear(
            rank, out_dim, (None, axes[1]), policy=policy, rngs=rngs, use_bias=False, zero=True
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps the last dimension from `in_dim` to `out_dim`."""
        return self.up(self.down(x))


class LoRALinear(nnx.Module):
    """A linear layer with a LoRA beside it; only the LoRA is trained.

    Source: arXiv:2106.09685.
    """

    def __init__(self, base: nnx.Linear, low_rank: LowRank, factor: float):
        self.base, self.low_rank, self.factor = base, low_rank, factor

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer and adds `factor` times the LoRA, alpha / rank."""
        return self.base(x) + self.factor * self.low_rank(x)


class FeedForward(nnx.Module):
    """Linear, activation, Linear."""

    def __init__(
        self,
        dims: Sequence[int],
        activation: Callable[[jax.Array], jax.Array],
        *,
        policy: Policy,
        rngs: nnx.Rngs,
    ):
        in_dim, hidden_dim, out_dim = dims
        self.up = linear(in_dim, hidden_dim, ("embed", "mlp"), policy=policy, rngs=rngs)
        self.down = linear(hidden_dim, out_dim, ("mlp", "embed"), policy=policy, rngs=rngs)
        self.activation = activation

    @jax.named_scope("ffn")
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps the last dimension from `dims[0]` to `dims[2]`."""
        if isinstance(self.up, EightBitLinear) and x.ndim == 4:
            return a_few_frames_at_a_time(self._apply, x)
        return self._apply(x)

    def _apply(self, x: jax.Array) -> jax.Array:
        return self.down(self.activation(self.up(x)))


def gelu_tanh(x: jax.Array) -> jax.Array:
    """GELU with the tanh approximation, as in Wan2.2 and UMT5."""
    return jax.nn.gelu(x, approximate=True)


def timestep_embedding(timesteps: jax.Array, dim: int) -> jax.Array:
    """Sinusoidal embedding of timesteps, cosines first.

    Args:
      timesteps: Any shape, on the 0..1000 scale.
      dim: Width of the embedding, even.

    Returns:
      float32, in the shape of `timesteps` with a last dimension `dim`.

    Source: Wan2.2 `wan/modules/model.py`, `sinusoidal_embedding_1d`.
    """
    half = dim // 2
    # Float32 whatever the policy: bfloat16 does not distinguish neighboring timesteps near 1000.
    frequencies = jnp.exp(-math.log(10000.0) / half * jnp.arange(half, dtype=jnp.float32))
    angles = timesteps.astype(jnp.float32)[..., None]
    angles = angles * broadcast_to_rank(frequencies, angles.ndim)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def per_frame(function: Callable[[jax.Array], jax.Array], x_BTHWC: jax.Array) -> jax.Array:
    """Applies a function of images `[N, H, W, C]` to all frames of all videos."""
    out = function(rearrange(x_BTHWC, "b t h w c -> (b t) h w c"))
    out = rearrange(out, "(b t) h w c -> b t h w c", t=x_BTHWC.shape[1])
    return split_batch_like(out, x_BTHWC)


def patchify(x_BThwC: jax.Array, patch_size: tuple[int, int]) -> jax.Array:
    """Folds patches into tokens: `[B, T, h, w, C] -> [B, T, P, q * r * C]`.

    It splits or merges one dimension at a time: explicit sharding supports no other reshape.
    """
    x = rearrange(x_BThwC, "b t (h q) w c -> b t h q w c", q=patch_size[0])
    x = rearrange(x, "b t h q (w r) c -> b t h w q r c", r=patch_size[1])
    return rearrange(rearrange(x, "b t h w q r c -> b t h w (q r c)"), "b t h w c -> b t (h w) c")


def unpatchify(x_BTPC: jax.Array, patch_size: tuple[int, int], width: int) -> jax.Array:
    """The inverse of `patchify`, for latents of this width."""
    q, r = patch_size
    x = rearrange(x_BTPC, "b t (h w) c -> b t h w c", w=width // r)
    x = rearrange(x, "b t h w (q r c) -> b t h q w r c", q=q, r=r)
    return rearrange(
        rearrange(x, "b t h q w r c -> b t h q (w r) c"), "b t h q w c -> b t (h q) w c"
    )
