"""The configuration of the models of a checkpoint together."""

from __future__ import annotations

import dataclasses

from flashmotion_jax.config.models import DiTConfig, TextEncoderConfig, TinyVAEConfig, VAEConfig
from flashmotion_jax.config.sampling import SamplingConfig
from flashmotion_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """Configuration of the three models, and how they are sampled.

    Raises:
      UserError: The models do not belong together.
    """

    dit: DiTConfig
    vae: VAEConfig
    text_encoder: TextEncoderConfig
    sampling: SamplingConfig
    tiny_vae: TinyVAEConfig | None = None  # a second, fast autoencoder of the same latents

    def __post_init__(self) -> None:
        for what, of_dit, other, size in (
            ("latent channels", self.dit.in_channels, "VAE", self.vae.latent_channels),
            ("text channels", self.dit.text_dim, "text encoder", self.text_encoder.dim),
        ):
            if of_dit != size:
                raise UserError(
                    f"the DiT has {of_dit} {what} and the {other} {size}; expected models that "
                    "belong together: Wan2.2-TI2V-5B has 48 latent and 4096 text channels"
                )
        if self.tiny_vae is not None:
            require_same_latents(self.vae, self.tiny_vae)


def require_same_latents(vae: VAEConfig, tiny_vae: TinyVAEConfig) -> None:
    """Checks that two autoencoders have latents of the same shape.

    Raises:
      UserError: They do not.
    """
    for name in ("latent_channels", "spatial_factor", "temporal_factor"):
        full, tiny = getattr(vae, name), getattr(tiny_vae, name)
        if full != tiny:
            raise UserError(
                f"the VAE has {name}={full} and the tiny VAE {tiny}; expected a tiny VAE of "
                "the same latents, for Wan2.2-TI2V-5B taew2_2 or taew2_2_super"
            )
