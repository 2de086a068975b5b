"""How configurations refuse a value."""

from __future__ import annotations

import dataclasses
from typing import Any


def require(condition: bool, message: str) -> None:
    """Raises `ValueError(message)` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_sizes(config: Any) -> None:
    """Raises `ValueError` unless a dataclass's whole numbers, in tuples too, are at least 1."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        sizes = [number for number in numbers if type(number) is int]  # a bool is no size
        require(min(sizes, default=1) >= 1, f"{field.name}={value}; expected at least 1")
