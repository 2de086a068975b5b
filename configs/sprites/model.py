"""The untrained small model: 17 frames of 64 x 64 pixels.

    flashmotion new --config configs/sprites/model.py checkpoints/sprites

Hardware: a CPU, a few seconds.
Expect: a checkpoint whose videos are noise, because its velocity is zero.
"""

from flashmotion_jax.checkpoints.init import NewModelConfig
from flashmotion_jax.config import DiTConfig, SamplingConfig, TextEncoderConfig, VAEConfig
from flashmotion_jax.data.sprites import MAP_KIND, VOCABULARY

CHANNELS = 48  # of the latents
TEXT_DIM = 64


def get_config() -> NewModelConfig:
    """Tokens of 8 x 8 pixels, several per sprite; the exported model is smaller than 30 MB."""
    return NewModelConfig(
        words=VOCABULARY,
        dit=DiTConfig(
            dim=192,
            num_heads=6,
            ffn_dim=512,
            num_layers=6,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            patch_size=(1, 1),
            text_dim=TEXT_DIM,
            text_len=72,
            freq_dim=64,
        ),
        vae=VAEConfig(
            latent_channels=CHANNELS,
            encoder_dim=64,
            decoder_dim=96,
            multipliers=(1, 1, 1),
            num_res_blocks=1,
            temporal_downsample=(True, True),
            spatial_downsample=(True, False),
            patch_size=4,
            linear_code=True,
            latents_mean=(0.0,) * CHANNELS,
            latents_std=(1.0,) * CHANNELS,
        ),
        text_encoder=TextEncoderConfig(
            vocab_size=128,
            dim=TEXT_DIM,
            num_heads=4,
            head_dim=16,
            ffn_dim=128,
            num_layers=2,
            num_buckets=16,
            max_distance=32,
        ),
        sampling=SamplingConfig(
            sampler="euler",
            solver_steps=30,
            solver_grid="diffusers",  # as for the included model
            shift=3.0,
            guidance_scale=3.0,
            negative_prompt="",
            height=64,
            width=64,
            num_frames=17,
            fps=8,
            map_kind=MAP_KIND,
        ),
    )
