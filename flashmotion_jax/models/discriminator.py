"""The discriminator: attention classifiers on blocks of a frozen DiT, and one logit per video.

The classifier of a block has a learned query token. It attends in turn to the first frame and the
text (semantic self-attention, SS), the trajectory (trajectory cross-attention, TC), and the video
tokens of the block (video cross-attention, VC). An MLP follows; another one turns the tokens of all
classifiers into a logit. The DiT is not trained.

Tokens of image, trajectory and video have sinusoids of their position `(t, y, x)` added. The DiT's
rotary embedding would not do, because the values must contain the position: TC tells the query
where an object should be, and VC looks there.

Sources: FlashMotion section 3.4 and figure 3, which do not give the widths; `GanAttentionBlock` and
`RegisterTokens` of Wan2.2-TI2V-5B-Turbo for `DiscriminatorConfig.extra_norms`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from flashmotion_jax.config import DiscriminatorConfig, DiTConfig
from flashmotion_jax.models import layers
from flashmotion_jax.models.attention import attend_to_whole
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.layers import FLOAT32, Policy
from flashmotion_jax.models.rope import axis_dims
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import gather, split_batch_like


class QueryAttention(nnx.Module):
    """Pre-norm attention of one query token, with a residual connection."""

    def __init__(self, config: DiscriminatorConfig, *, eps: float, policy: Policy, rngs: nnx.Rngs):
        def project(axes: tuple[str, str], use_bias: bool = True) -> nnx.Linear:
            return layers.linear(
                config.dim, config.dim, axes, policy=policy, rngs=rngs, use_bias=use_bias
            )

        self.norm = layers.layer_norm(config.dim, eps=eps, affine=False, rngs=rngs)
        self.q, self.v = project(("embed", "heads")), project(("embed", "heads"))
        # Softmax does not depend on a bias of the keys, which shifts all scores of a query alike.
        self.k = project(("embed", "heads"), use_bias=False)
        self.o = project(("heads", "embed"))
        self.norm_q = _optional_rms_norm(config, eps, rngs)
        self.norm_k = _optional_rms_norm(config, eps, rngs)
        self.num_heads = config.num_heads

    def __call__(self, query_B1D: jax.Array, tokens_BND: jax.Array) -> jax.Array:
        """Returns the float32 query `[B, 1, D]` after attention to N tokens."""

        def heads(x: jax.Array) -> jax.Array:
            return rearrange(x, "b n (a e) -> b n a e", a=self.num_heads)

        tokens_BND = self.norm(tokens_BND)
        q_B1D, k_BND = self.q(self.norm(query_B1D)), self.k(tokens_BND)
        if self.norm_q is not None and self.norm_k is not None:
            q_B1D = self.norm_q(q_B1D).astype(q_B1D.dtype)
            k_BND = self.norm_k(k_BND).astype(k_BND.dtype)
        q_B11AE = heads(q_B1D)[:, None]
        k_BNAE, v_BNAE = heads(k_BND), heads(self.v(tokens_BND))
        out_B11AE = attend_to_whole(q_B11AE, k_BNAE, v_BNAE)
        return query_B1D + self.o(rearrange(out_B11AE[:, 0], "b n a e -> b n (a e)"))


class Classifier(nnx.Module):
    """The classifier of one DiT block: three attention layers of a query, then an MLP."""

    def __init__(
        self,
        config: DiscriminatorConfig,
        dit_config: DiTConfig,
        *,
        policy: Policy,
        rngs: nnx.Rngs,
    ):
        def attend() -> QueryAttention:
            return QueryAttention(config, eps=dit_config.eps, policy=policy, rngs=rngs)

        self.query = layers.learned_rows(1, config.dim, rngs)
        self.norm_query = _optional_rms_norm(config, dit_config.eps, rngs)
        self.semantic = attend() if config.semantic else None
        self.trajectory = attend() if config.trajectory else None
        self.video = attend()
        self.norm_video = layers.layer_norm(
            dit_config.dim, eps=dit_config.eps, affine=False, rngs=rngs
        )
        self.embed_video = layers.linear(
            dit_config.dim, config.dim, ("embed", "heads"), policy=policy, rngs=rngs
        )
        self.norm = layers.layer_norm(config.dim, eps=dit_config.eps, affine=False, rngs=rngs)
        self.mlp = layers.FeedForward(
            (config.dim, 4 * config.dim, config.dim), layers.gelu_tanh, policy=policy, rngs=rngs
        )

    def __call__(
        self,
        output_BTPD: jax.Array,
        semantic_BSD: jax.Array | None,
        trajectory_BND: jax.Array | None,
        positions_ND: jax.Array,
    ) -> jax.Array:
        """Classifies the output of a block.

        Args:
          output_BTPD: float32 residual stream after the block.
          semantic_BSD: Tokens of the first frame and the text; None without SS.
          trajectory_BND: Tokens of the trajectory; None without TC.
          positions_ND: Position embedding of the video tokens.

        Returns:
          float32 token `[B, D]`.
        """
        batch = output_BTPD.shape[0]
        query = jnp.broadcast_to(self.query[...], (batch, *self.query.shape))
        query = split_batch_like(query, output_BTPD)
        if self.norm_query is not None:
            query = self.norm_query(query)
        if self.semantic is not None and semantic_BSD is not None:
            # The query's row of self-attention over [query; image; text]; no other row is needed.
            query = self.semantic(query, jnp.concatenate([query, semantic_BSD], axis=1))
        if self.trajectory is not None and trajectory_BND is not None:
            query = self.trajectory(query, trajectory_BND)
        video_BND = self.embed_video(self.norm_video(merge_frames(output_BTPD)))
        video_BND = video_BND + positions_ND[None]
        query = self.video(query, video_BND)
        token_BD = self.mlp(self.norm(query))[:, 0].astype(jnp.float32)
        return token_BD if self.norm_query is None else token_BD + query[:, 0]


def _optional_rms_norm(
    config: DiscriminatorConfig, eps: float, rngs: nnx.Rngs
) -> nnx.RMSNorm | None:
    return layers.rms_norm(config.dim, eps=eps, rngs=rngs) if config.extra_norms else None


def merge_frames(x_BTPD: jax.Array) -> jax.Array:
    """`[B, T, P, D] -> [B, N, D]`: a query attends to the tokens of all frames."""
    return rearrange(x_BTPD, "b t p d -> b (t p) d")


class Discriminator(nnx.Module):
    """Classifiers on the outputs of some blocks of a frozen DiT, which every call takes.

    Attributes:
      config: Configuration, with the indices of the blocks.
      classifiers: One classifier per block, stacked.
    """

    def __init__(
        self,
        config: DiscriminatorConfig,
        dit_config: DiTConfig,
        *,
        policy: Policy = FLOAT32,
        rngs: nnx.Rngs,
    ):
        def embed(in_dim: int) -> nnx.Linear:
            return layers.linear(in_dim, config.dim, (None, "embed"), policy=policy, rngs=rngs)

        self.config = config
        self.patch_size = dit_config.patch_size
        self.remat = policy.remat
        patch_dim = dit_config.patch_size[0] * dit_config.patch_size[1] * dit_config.in_channels
        # A part that an ablation leaves out has no weights.
        self.embed_image = embed(patch_dim) if config.semantic else None
        self.embed_text = embed(dit_config.text_dim) if config.semantic else None
        self.embed_trajectory = embed(patch_dim) if config.trajectory else None
        self.classifiers = layers.stack(
            lambda rngs: Classifier(config, dit_config, policy=policy, rngs=rngs),
            len(config.block_indices),
            rngs,
        )
        width = len(config.block_indices) * config.dim
        self.norm_tokens = (
            layers.layer_norm(width, eps=dit_config.eps, affine=True, rngs=rngs)
            if config.extra_norms
            else None
        )
        self.head = layers.FeedForward(
            (width, config.dim, 1),
            layers.gelu_tanh,
            policy=FLOAT32,  # bfloat16 would round logits to two or three digits
            rngs=rngs,
        )
        # Logits start near 0, where softplus has a slope; at 0 the classifiers had no gradient.
        self.head.down.kernel[...] *= 0.01

    @jax.named_scope("discriminator")
    def __call__(
        self,
        backbone: DiT,
        latents: jax.Array,
        timesteps: jax.Array,
        text: jax.Array,
        image_latents: jax.Array,
        trajectory: jax.Array,
    ) -> jax.Array:
        """Classifies videos as real or generated.

        Gradients reach `latents` through the backbone.

        Args:
          backbone: The frozen DiT.
          latents: Noisy latents `[B, T, h, w, C]`.
          timesteps: `[B, T]` on the 0..1000 scale.
          text: `[B, S, text_dim]` embeddings. Zero padding is attended to, as in the DiT.
          image_latents: Clean latents of the first frame, `[B, 1, h, w, C]`; unused without SS.
          trajectory: Latents of the trajectory map, `[B, T, h, w, C]`; unused without TC.

        Returns:
          float32 logits `[B]`, above 0 for real.

        Raises:
          UserError: The shapes do not match, or the backbone has no block of some index.
        """
        for name, x, expected in (
            ("image_latents", image_latents, latents[:, :1].shape),
            ("trajectory", trajectory, latents.shape),
        ):
            if x.shape != expected:
                raise UserError(
                    f"{name} have shape {x.shape}; expected {expected} for latents of shape "
                    f"{latents.shape}"
                )
        outputs_KBTPD = backbone.block_outputs(latents, timesteps, text, self.config.block_indices)
        # Fixed: where a token is in the video, for queries that otherwise see an unordered set.
        positions_ND = self._positions(latents)
        semantic_BSD = self._semantic_tokens(image_latents, text)
        trajectory_BND = None
        if self.embed_trajectory is not None:
            trajectory_BND = self._patch_tokens(self.embed_trajectory, trajectory)

        def one_classifier(_: None, inputs: tuple[Classifier, jax.Array]) -> tuple[None, jax.Array]:
            classifier, output_BTPD = inputs
            return None, gather(classifier)(output_BTPD, semantic_BSD, trajectory_BND, positions_ND)

        _, tokens_KBD = jax.lax.scan(
            layers.remat(one_classifier, self.remat), None, (self.classifiers, outputs_KBTPD)
        )
        tokens_BD = rearrange(tokens_KBD, "k b d -> b (k d)")
        if self.norm_tokens is not None:
            tokens_BD = self.norm_tokens(tokens_BD)
        return self.head(tokens_BD)[:, 0]

    def _semantic_tokens(self, image_latents: jax.Array, text: jax.Array) -> jax.Array | None:
        """Tokens of the first frame and the text, `[B, S, D]`."""
        if self.embed_image is None or self.embed_text is None:
            return None
        image = self._patch_tokens(self.embed_image, image_latents)
        return jnp.concatenate([image, self.embed_text(text)], axis=1)

    def _patch_tokens(self, embed: nnx.Linear, latents: jax.Array) -> jax.Array:
        """One token per patch, with its position added: float32 `[B, N, D]`."""
        tokens_BTPD = embed(layers.patchify(latents, self.patch_size))
        # For a batch of one, merging a single frame loses which dimension was the batch.
        tokens_BND = split_batch_like(merge_frames(tokens_BTPD), tokens_BTPD)
        return tokens_BND + self._positions(latents)[None]

    def _positions(self, latents: jax.Array) -> jax.Array:
        _, frames, height, width, _ = latents.shape
        patch_height, patch_width = self.patch_size
        grid = (frames, height // patch_height, width // patch_width)
        return position_embedding(grid, self.config.dim)


def position_embedding(grid: tuple[int, int, int], dim: int) -> jax.Array:
    """Sinusoidal position embedding of the tokens of a `[T, h, w]` grid.

    Args:
      grid: Latent frames, token rows and token columns.
      dim: Even width, divided among the three axes as in the DiT's rotary embedding.

    Returns:
      float32 `[N, dim]`, N in (t, h, w) order.
    """
    axes = [
        jnp.broadcast_to(
            jnp.expand_dims(
                layers.timestep_embedding(jnp.arange(length), width),
                [other for other in range(3) if other != axis],
            ),
            (*grid, width),
        )
        for axis, (length, width) in enumerate(zip(grid, axis_dims(dim), strict=True))
    ]
    return jnp.concatenate(axes, axis=-1).reshape(-1, dim)
