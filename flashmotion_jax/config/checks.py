"""Validation of configuration values."""

from __future__ import annotations

import dataclasses
from typing import Any

from flashmotion_jax.runtime.errors import UserError


def require(condition: bool, message: str) -> None:
    """Raises `UserError(message)` unless the condition holds."""
    if not condition:
        raise UserError(message)


#: Of an axis; the vocabulary of UMT5 has 256,384 tokens.
MAX_SIZE = 2**24
#: Of layers, whose names are made one by one.
MAX_LAYERS = 1024


def require_sizes(config: Any) -> None:
    """Raises `UserError` unless every int of a dataclass is a size that a model can have.

    Those are from 1 to `MAX_SIZE`, also inside tuples; for `num_layers`, up to `MAX_LAYERS`.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        sizes = [number for number in numbers if type(number) is int]  # excludes bool
        most = MAX_LAYERS if field.name == "num_layers" else MAX_SIZE
        shown = f"{field.name}={value!r:.100}"
        require(min(sizes, default=1) >= 1, f"{shown}; expected at least 1")
        require(max(sizes, default=1) <= most, f"{shown}; expected at most {most}")
