"""What programs put around the weights of a component: words of the keys before its own.

Checkpoints nest state dicts, and modules hold modules; both end as parts of a dotted key, in any
order and number: `state_dict.model._fsdp_wrapped_module.adapter.blocks.0...`. `recognition`
finds where a component's own keys begin. This file says what the parts before them mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from flashmotion_jax.config.adapters import ADAPTERS as KINDS

from .tensors import StateDict

#: Parts that torch inserts anywhere in a key.
INSERTED = re.compile(
    r"(^|\.)(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod|_module)(?=\.)"
)

#: Words of parts that hold an adapter.
ADAPTERS = frozenset(("adapter", "control", "trajectory", "traj", *KINDS))

#: Words of parts that hold weights.
HOLDERS = frozenset(
    (
        # How checkpoints nest them.
        *("state", "dict", "params", "weights", "checkpoint", "ckpt", "raw", "ema", "shadow"),
        *("averaged", "stage", "first", "cond"),
        # What modules call the modules inside.
        *("module", "modules", "model", "models", "net", "network", "backbone", "base", "trainer"),
        *("system", "pipe", "pipeline"),
        # What they call the components.
        *("generator", "student", "denoiser", "unet", "dit", "wan", "transformer", "diffusion"),
        *(*ADAPTERS, "slow", "fast"),
        *("vae", "autoencoder", "text", "encoder", "encoders", "t5", "umt5", "t5xxl", "umt5xxl"),
    )
)

#: Words of parts that hold a moving average of the weights.
AVERAGES = frozenset(("ema", "shadow", "averaged"))

#: Words of parts that training needs and a converted model does not.
TRAINING = frozenset(
    (
        *("critic", "discriminator", "disc", "gan", "cls", "fake", "real", "score", "teacher"),
        *("guidance", "logit", "loss", "lpips", "perceptual"),
        *("optimizer", "optimizers", "optim", "opt", "scheduler", "schedulers", "lr", "scaler"),
        *("callbacks", "loops", "rng", "step", "steps", "epoch", "iteration", "hyper"),
    )
)


def clean(key: str) -> str:
    """Returns a key without the parts that torch inserts."""
    return INSERTED.sub("", key).lstrip(".")


def is_holder(prefix: str) -> bool:
    """Whether a prefix such as "model.generator_ema." consists of known words."""
    return all(word in HOLDERS for word in _words(prefix))


def is_adapter(prefix: str) -> bool:
    """Whether weights under a prefix are those of an adapter."""
    return not ADAPTERS.isdisjoint(_words(prefix))


def is_average(prefix: str) -> bool:
    """Whether weights under a prefix are a moving average."""
    return not AVERAGES.isdisjoint(_words(prefix))


def is_training(prefix: str) -> bool:
    """Whether what is under a prefix belongs to training alone."""
    return not TRAINING.isdisjoint(_words(prefix))


def common_holder(keys: Iterable[str]) -> str:
    """Returns the longest prefix of known words that all keys have."""
    keys, prefix = list(keys), ""
    while True:
        parts = {key.removeprefix(prefix).partition(".")[0] for key in keys}
        if len(parts) != 1 or not all(key.startswith(prefix) for key in keys):
            return prefix
        (part,) = parts
        if not is_holder(part) or any(key == f"{prefix}{part}" for key in keys):
            return prefix
        prefix += f"{part}."


def strip_holders(source: StateDict) -> StateDict:
    """Returns the tensors of a file with one model, without what stands before all keys."""
    names = {clean(key): tensor for key, tensor in source.items()}
    prefix = common_holder(names)
    return {name.removeprefix(prefix): tensor for name, tensor in names.items()}


def _words(prefix: str) -> list[str]:
    return [word for word in re.split(r"[._-]+", prefix.lower()) if word]
