"""All models of a checkpoint, in memory."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from flashmotion_jax.checkpoints.components import load_component, open_checkpoint
from flashmotion_jax.config import ModelsConfig
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.text_encoder import TextEncoder
from flashmotion_jax.models.tiny_vae import TinyVAE
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
    """The models of a checkpoint, in memory.

    Attributes:
      config: Configuration of the models, and how they are sampled.
      dit, vae, text_encoder: The modules.
      tokenizer: Tokenizer of the text encoder.
      tiny_vae: The tiny autoencoder, where the checkpoint has one.
    """

    config: ModelsConfig
    dit: DiT
    vae: VAE
    text_encoder: TextEncoder
    tokenizer: Tokenizer
    tiny_vae: TinyVAE | None


def load_models(path: str | Path, dtype: str = "bfloat16", *, weights: str | None = None) -> Models:
    """Reads DiT, VAE, text encoder and tokenizer of a checkpoint.

    Args:
      path: Folder written by `flashmotion convert import` or by training.
      dtype: Of matmuls and convolutions: "bfloat16" or "float32".
      weights: Dtype of their weights: "int8" or "fp8" for the linear layers of DiT and text
        encoder, "bfloat16" or "float32". None is 8 bits if they are stored so, else `dtype`.

    Returns:
      The models, on the current mesh, or without one on the first device.

    Raises:
      UserError: The folder is not a checkpoint, lacks a component, or is damaged; or the device has
        no matmul for the weights.
    """
    checkpoint = open_checkpoint(path)
    load = functools.partial(load_component, path, dtype=dtype, weights=weights)
    return Models(
        config=checkpoint.config,
        tokenizer=checkpoint.tokenizer,
        dit=load("dit"),
        vae=load("vae"),
        text_encoder=load("text_encoder"),
        tiny_vae=load("tiny_vae") if checkpoint.config.tiny_vae else None,
    )
