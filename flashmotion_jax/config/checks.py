"""How configurations refuse a value."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    """Raises `ValueError(message)` unless the condition holds."""
    if not condition:
        raise ValueError(message)
