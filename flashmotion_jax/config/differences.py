"""What may change when a training run is resumed, and what may not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from flashmotion_jax.config.runs import TrainConfig


def differences(old: dict[str, Any], new: TrainConfig) -> list[str]:
    """Lists the fields that differ between two runs and determine their numbers.

    Args:
      old: `to_dict` of a `TrainConfig`, possibly read back from JSON. Fields that it lacks, because
        an earlier version wrote it, have their defaults.
      new: The other configuration.

    Returns:
      One line per field, `key: old -> new`.
    """
    free = set(_free(new))
    old_leaves, new_leaves = (
        {key: value for key, value in _leaves(values) if key not in free}
        for values in (_with_defaults(old, new), dataclasses.asdict(new))
    )
    return [
        f"{key}: {old_leaves.get(key, 'nothing')} -> {new_leaves.get(key, 'nothing')}"
        for key in sorted(old_leaves.keys() | new_leaves.keys())
        if old_leaves.get(key) != new_leaves.get(key)
    ]


def _with_defaults(values: dict[str, Any], config: Any) -> dict[str, Any]:
    """Adds the defaults of fields of `config` that are missing, also in nested configurations."""
    complete = dict(values)
    for field in dataclasses.fields(config):
        inner = getattr(config, field.name)
        if field.name not in values:
            if field.default is not dataclasses.MISSING:
                complete[field.name] = field.default
            elif field.default_factory is not dataclasses.MISSING:
                complete[field.name] = field.default_factory()
            if dataclasses.is_dataclass(default := complete.get(field.name)):
                complete[field.name] = dataclasses.asdict(default)  # pyrefly: ignore
        elif dataclasses.is_dataclass(inner) and isinstance(values[field.name], dict):
            complete[field.name] = _with_defaults(values[field.name], inner)
    return complete


def _free(config: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            inner = f"{prefix}{field.name}."
            names = [name for name, _ in _leaves(dataclasses.asdict(value), inner)]  # pyrefly: ignore
            yield from names if field.metadata.get("free") else _free(value, inner)
        elif field.metadata.get("free"):
            yield prefix + field.name


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value
