"""Reading of JSON that anybody may have written: bounded, and without surprises in its values.

Python's parser also accepts NaN, repeated keys and numbers beyond float64, and a file of 10 MB can
take gigabytes or end in a `RecursionError`. What these functions return is plain JSON (RFC 8259)
that can be written again.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import check_json_size, max_json_bytes

#: Lists and objects within each other.
MAX_DEPTH = 64
#: Digits of an integer; 64 bits have at most 20.
_MAX_DIGITS = 20
_SEPARATOR = re.compile(r"[\s,\ufeff]*")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_value(file: Path, fix: str) -> Any:
    """Reads a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Args:
      file: The file.
      fix: What to do about a bad file, for the message.

    Returns:
      The value. Its numbers are finite, and its text can be encoded.

    Raises:
      UserError: The file is missing, is not JSON, repeats a key of an object, or is larger or
        nested deeper than the limits allow.
    """
    return parse_json(read_json_text(file, fix), file, fix)


def read_json_object(file: Path, fix: str) -> dict[str, Any]:
    """Like `read_json_value`, for a file that must hold an object.

    Args:
      file: The file.
      fix: What to do about a bad file, for the message.

    Raises:
      UserError: See `read_json_value`, or the file holds another value.
    """
    value = read_json_value(file, fix)
    if not isinstance(value, dict):
        raise UserError(f"{file} is not a JSON object but {reprlib.repr(value)}; {fix}")
    return value


def parse_json(data: bytes | str, name: object, fix: str) -> Any:
    """Parses a JSON document; see `read_json_value`.

    Args:
      data: The document.
      name: What holds it, for the message.
      fix: What to do about it, for the message.

    Raises:
      UserError: See `read_json_value`.
    """
    text = _decoded(data, name, fix)
    with _explained(name, fix):
        value = _DECODER.decode(text)
        _check(value, text)
    return value


def parse_json_documents(text: str, name: object, fix: str) -> Iterator[Any]:
    """Parses JSON documents that follow each other, with commas or white space between them.

    Args:
      text: The documents.
      name: What holds them, for the message.
      fix: What to do about them, for the message.

    Yields:
      The value of each.

    Raises:
      UserError: See `read_json_value`.
    """
    check_json_size(text, name)
    start = 0
    while True:
        separator = _SEPARATOR.match(text, start)
        start = separator.end() if separator else start
        if start == len(text):
            return
        with _explained(name, fix):
            value, end = _DECODER.raw_decode(text, start)
            _check(value, text)
        start = end
        yield value


def read_json_text(file: Path, fix: str) -> str:
    """Reads the text of a JSON file without parsing it; see `read_json_value`.

    Args:
      file: The file.
      fix: What to do about a bad file, for the message.

    Raises:
      UserError: The file is missing, larger than the limits allow, or in another encoding.
    """
    if not file.is_file():
        raise UserError(f"{file} is {'not a file' if file.exists() else 'missing'}; {fix}")
    with file.open("rb") as stream:
        return _decoded(stream.read(max_json_bytes() + 1), file, fix)


def _decoded(data: bytes | str, name: object, fix: str) -> str:
    if isinstance(data, bytes):
        check_json_size(data, name)
        with _explained(name, fix):
            data = data.decode(json.detect_encoding(data))
    check_json_size(data, name)
    return data.removeprefix("\ufeff")


@contextmanager
def _explained(name: object, fix: str) -> Generator[None]:
    """Raises what parsing raises as a `UserError`."""
    try:
        yield
    except RecursionError as error:
        cause, reason = error, f"nested more than {MAX_DEPTH} deep"
    except UnicodeDecodeError as error:
        cause, reason = error, f"not {error.encoding}: {error.reason} at byte {error.start}"
    except UnicodeEncodeError as error:
        cause, reason = error, "half of a surrogate pair, such as \\ud800, in text"
    except ValueError as error:
        cause, reason = error, str(error)
    else:
        return
    raise UserError(f"{name} is not JSON ({reason}); {fix}") from cause


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = max(counts, key=lambda key: counts[key])
        raise ValueError(f"the key {reprlib.repr(repeated)} is repeated")
    return found


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {reprlib.repr(text)} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"the number {reprlib.repr(text)} is too large")
    return int(text)


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_integer, parse_constant=_constant
)


def _check(value: Any, text: str) -> None:
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(MAX_DEPTH):
        children = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for some in children for one in some if isinstance(one, list | dict)]
    if level:
        raise RecursionError
    if _ESCAPED_SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()
