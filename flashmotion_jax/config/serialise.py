"""Configurations to and from plain JSON types, and one value at a time from a command line."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

from flashmotion_jax.runtime.errors import UserError

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON types."""
    return dataclasses.asdict(config)


def from_dict(cls: type[Config], values: dict[str, Any], where: str = "configuration") -> Config:
    """Builds `cls` from JSON types; tuples may be given as lists.

    Args:
      cls: a dataclass without dataclasses in it.
      values: field names to values.
      where: the file the values came from, for the error.

    Raises:
      UserError: a key that `cls` does not have; the nearest one is named.
    """
    names = _field_names(cls)
    for key in values:
        if key not in names:
            raise UserError(f"{where}: {_unknown(key, names, cls.__name__)}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def with_overrides(config: Config, assignments: Sequence[str]) -> Config:
    """A configuration with values from the command line.

    Args:
      config: a dataclass; dataclasses in it are reached by dots.
      assignments: `key=value`, for instance `stage.optimizer.learning_rate=1e-5`. Values are Python
        literals; what is none is text.

    Raises:
      UserError: an unknown key (the nearest one is named), a value of another type than the
        field's, or one that the configuration refuses.
    """
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"--set {assignment}: expected key=value")
        try:
            config = _override(config, key.split("."), text)
        except ValueError as error:
            raise UserError(f"--set {assignment}: {error}") from None
    return config


def _override(config: Any, keys: list[str], text: str) -> Any:
    head, *rest = keys
    names = _field_names(type(config))
    if head not in names:
        raise UserError(_unknown(head, names, type(config).__name__))
    if not rest:
        hint = typing.get_type_hints(type(config))[head]
        return dataclasses.replace(config, **{head: _parse(text, hint)})
    value = getattr(config, head)
    if not dataclasses.is_dataclass(value):
        raise UserError(f"{head} is a value and has no {'.'.join(rest)!r}")
    return dataclasses.replace(config, **{head: _override(value, rest, text)})


def _parse(text: str, hint: Any) -> Any:
    """The value of a field of type `hint` that a text stands for."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text, text)
    for option in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if (fitting := _fit(value, text, option)) is not None:
            return fitting
    raise UserError(f"expected {_describe(hint)}")


def _fit(value: Any, text: str, hint: Any) -> Any:
    """The value as one of the type, or None if it is none."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return next((choice for choice in args if choice in (value, text)), None)
    if hint is str:
        return text
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (bool, int):
        return value if type(value) is hint else None
    if origin is tuple and isinstance(value, tuple | list):
        items = [_fit(item, str(item), args[0]) for item in value]
        return None if None in items else tuple(items)
    if origin is dict and isinstance(value, dict):
        items = {key: _fit(item, str(item), args[1]) for key, item in value.items()}
        fitting = all(isinstance(key, args[0]) for key in items) and None not in items.values()
        return items if fitting else None
    return None


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if dataclasses.is_dataclass(hint) or isinstance(hint, types.UnionType):
        return "one of its fields, key.field=value"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, str(hint))


def _field_names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _unknown(key: str, names: Iterable[str], owner: str) -> str:
    nearest = difflib.get_close_matches(key, names, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known keys: {list(names)}"
    return f"unknown key {key!r} for {owner}{hint}"
