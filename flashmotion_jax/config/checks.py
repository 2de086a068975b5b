"""Validation of configuration values."""

from __future__ import annotations

import dataclasses
from typing import Any

from flashmotion_jax.runtime.errors import UserError


def require(condition: bool, message: str) -> None:
    """Raises `UserError(message)` unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_sizes(config: Any) -> None:
    """Raises `UserError` unless every int of a dataclass, also inside tuples, is at least 1."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        sizes = [number for number in numbers if type(number) is int]  # excludes bool
        require(min(sizes, default=1) >= 1, f"{field.name}={value}; expected at least 1")
