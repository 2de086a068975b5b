"""A checkpoint with initial weights, to train a model family from scratch.

DiT, VAE and text encoder are initialized as their layers define, except for the parameters in
`FACTORS`; the tokenizer knows a list of words.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import ModelsConfig
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.runtime.lock import sole_writer
from flashmotion_jax.text.word_tokenizer import vocabulary, write_word_tokenizer

#: Component -> pattern of parameter names -> factor of the layer's initial values.
#: DiT: each block starts as the identity (adaLN-zero: gates and text output are zero), and the
#: velocity is zero. VAE: residual blocks start as the identity. Text encoder: T5's attention has no
#: 1 / sqrt(E), and its token embeddings have unit variance.
#: Source: DiT, arXiv:2212.09748, section 3.2; PixArt-alpha, arXiv:2310.00426, section 2.3, for the
#: cross-attention; transformers `T5PreTrainedModel._init_weights`.
FACTORS: Mapping[str, Mapping[str, Callable[[Any], float]]] = {
    "dit": {
        "head.head.kernel": lambda _: 0.0,
        "time_projection.kernel": lambda _: 0.0,
        "blocks.modulation": lambda _: 0.0,
        "blocks.cross_attn.o.kernel": lambda _: 0.0,
    },
    "vae": {"*coder.*.conv2.kernel": lambda _: 0.0},
    "text_encoder": {
        "token_embedding.embedding": lambda config: math.sqrt(config.dim),
        "blocks.attn.q.kernel": lambda config: 1 / math.sqrt(config.head_dim),
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewModelConfig(ModelsConfig):
    """A new model family: sizes, sampling settings and words.

    Attributes:
      words: Every word that prompts may use.

    Raises:
      UserError: The text encoder has too few rows for the tokens, or sizes do not fit together.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        num_tokens, rows = len(vocabulary(self.words)), self.text_encoder.vocab_size
        if num_tokens > rows:
            raise UserError(
                f"{num_tokens} tokens (words, punctuation and special ones) for "
                f"text_encoder.vocab_size={rows}; raise it to {num_tokens} or more"
            )
        for name, other in (
            ("dit.in_channels", "vae.latent_channels"),
            ("dit.out_channels", "vae.latent_channels"),
            ("dit.text_dim", "text_encoder.dim"),
        ):
            value, expected = operator.attrgetter(name, other)(self)
            if value != expected:
                raise UserError(f"{name}={value}; expected {other}, which is {expected}")


def init_checkpoint(path: str | Path, config: NewModelConfig, seed: int = 0) -> int:
    """Writes a checkpoint of untrained models in float32; a failure leaves no files.

    Args:
      path: Folder of the checkpoint, which must not exist.
      config: The model family.
      seed: Seed of the weights.

    Returns:
      The number of parameters.

    Raises:
      UserError: The folder exists, or an entry of `words` is not a single word.
      OSError: The disk is full or not writable.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists; choose another folder, or remove it first")
    num_parameters = 0
    with sole_writer(path, beside=True), replacing(path) as scratch:
        write_word_tokenizer(scratch / "tokenizer", config.words)
        for kind in FACTORS:
            sizes = getattr(config, kind)
            module = init_component(kind, sizes, seed)
            num_parameters += sum(leaf.size for leaf in jax.tree.leaves(module))
            readers = components.parameter_readers(module)
            components.save_component(scratch, kind, sizes, readers, "float32")
        components.write_sampling(scratch, config.sampling)
    return num_parameters


@functools.partial(program, static_argnames=("kind", "config"))
def init_component(kind: str, config: Any, seed: int) -> Any:
    """Initializes a component in float32.

    Args:
      kind: A key of `FACTORS`.
      config: Configuration of the component.
      seed: Seed of the weights.
    """
    # One program for all: run eagerly, each initializer would be compiled on its own.
    module = components.MODELS[kind][1](config, rngs=nnx.Rngs(jax.random.key(seed)))
    parameters = components.flat_parameters(module)
    for pattern, factor in FACTORS[kind].items():
        for name in fnmatch.filter(parameters, pattern):
            parameters[name].set_value(parameters[name].get_value() * factor(config))
    if kind == "vae":
        for name, parameter in parameters.items():
            if parameter.get_value().ndim == 5:
                parameter.set_value(_present_frame_only(name, parameter.get_value()))
    return module


def _present_frame_only(name: str, kernel: jax.Array) -> jax.Array:
    """Zero a causal convolution `[kt, kh, kw, C_in, C_out]` for all but the present frame.

    Training on single frames does not train the taps of past frames: starting at zero, they do not
    disturb what it learns. Temporal downsampling then takes every second frame, and upsampling
    repeats each frame.
    """
    present = kernel[-1]
    if name.endswith("time_conv.kernel"):
        in_channels, out_channels = kernel.shape[-2:]
        eye = jnp.eye(in_channels, dtype=kernel.dtype)
        present = jnp.tile(eye, out_channels // in_channels)[None, None]
    return jnp.zeros_like(kernel).at[-1].set(present)
