"""Conversion of configurations to and from JSON types, and overrides from the command line."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import reprlib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

from flashmotion_jax.runtime.errors import UserError

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """Converts a configuration to JSON types."""
    return dataclasses.asdict(config)


def from_dict(cls: type[Config], values: Any, where: str = "configuration") -> Config:
    """Builds a configuration from JSON types; lists become tuples.

    Args:
      cls: A dataclass without nested dataclasses.
      values: Field names to values.
      where: Where the values come from, for error messages.

    Raises:
      UserError: The values are not a mapping, a key is not a field of `cls` (the message suggests
        the nearest one), or a value does not have the type of its field.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: {values!r:.100} is not a {cls.__name__}; expected an object")
    hints = typing.get_type_hints(cls)
    for key, value in values.items():
        if key not in hints:
            raise UserError(f"{where}: {_unknown(key, _field_names(cls), cls.__name__)}")
        if not _is_of_type(value, hints[key]):
            raise UserError(f"{where}: {key}={value!r:.100}; expected {_describe(hints[key])}")
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = dataclasses.MISSING is field.default is field.default_factory
        if required and field.name not in values:
            raise UserError(f"{where}: {field.name} is missing; {cls.__name__} needs it")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def with_overrides(config: Config, assignments: Sequence[str]) -> Config:
    """Returns a copy of a configuration with values from the command line.

    Args:
      config: A dataclass. Dots reach into nested dataclasses.
      assignments: `key=value` each, for instance `stage.optimizer.learning_rate=1e-5`. Values are
        Python literals; anything else is taken as text.

    Raises:
      UserError: A key is unknown (the message suggests the nearest one), a value does not have the
        type of its field, or the configuration rejects it.
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
    """Parses text as a value of the type `hint`."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text, text)
    for option in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if (fitting := _fit(value, text, option)) is not None:
            return fitting
    raise UserError(f"expected {_describe(hint)}")


def _fit(value: Any, text: str, hint: Any) -> Any:
    """Converts a value to the type `hint`, or returns None if it does not fit."""
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
        if args[-1] is not Ellipsis and len(value) != len(args):
            return None
        items = [_fit(item, str(item), args[0]) for item in value]
        return None if None in items else tuple(items)
    if origin is dict and isinstance(value, dict):
        items = {key: _fit(item, str(item), args[1]) for key, item in value.items()}
        fitting = all(isinstance(key, args[0]) for key in items) and None not in items.values()
        return items if fitting else None
    return None


def _is_of_type(value: Any, hint: Any) -> bool:
    """Whether a value from JSON has the type `hint`."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None:
        return types.NoneType in options
    return any(_is_one_of_type(value, option) for option in options)


def _is_one_of_type(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if hint is str or dataclasses.is_dataclass(hint):
        return isinstance(value, hint)
    return _fit(value, value if isinstance(value, str) else "", hint) is not None


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
    hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known keys: {', '.join(names)}"
    return f"unknown key {reprlib.repr(key)} for {owner}{hint}"
