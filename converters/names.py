"""A user's table of names: `--map FILE`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import read_json_object


@dataclasses.dataclass(frozen=True)
class Names:
    """A user's table of names.

    Attributes:
      keys: Path of a parameter here, or a regular expression for several -> key in the file.
      ignore: Regular expressions of keys to ignore.
      prefix: What stands before the component's keys; None to recognize it.
    """

    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignore: Sequence[str] = ()
    prefix: str | None = None

    def is_ignored(self, key: str) -> bool:
        """Whether one of the expressions matches a key."""
        return any(re.fullmatch(pattern, key) for pattern in self.ignore)


def read_names(file: Path) -> Names:
    """Reads a user's table: JSON of path -> key in the file, keys to `ignore`, and a `prefix`.

    Raises:
      UserError: The file is missing or has another form.
    """
    expected = (
        'expected JSON such as {"stem.bias": "conv_in.bias", "ignore": ["freqs"], "prefix": "net."}'
    )
    keys = read_json_object(file, expected)
    ignore, prefix = keys.pop("ignore", []), keys.pop("prefix", None)
    try:
        for pattern in (*keys, *ignore):
            re.compile(pattern)
        if not isinstance(ignore, list):
            raise TypeError("ignore is not a list")
        if not all(isinstance(key, str) for key in (*keys.values(), prefix or "")):
            raise TypeError("a key or the prefix is not a string")
        for key in keys.values():
            if set("{}") & set(key.replace("{layer}", "")):
                raise TypeError(f"{key!r:.80} has braces that are not {{layer}}")
    except (TypeError, re.error) as error:
        raise UserError(f"{file} is not a table of names ({error}); {expected}") from error
    return Names(keys, ignore, prefix)
