"""JSON is bounded and plain: finite numbers, no repeated keys, text that can be encoded."""

from __future__ import annotations

import json

import pytest

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import (
    MAX_DEPTH,
    parse_json,
    parse_json_documents,
    read_json_object,
    read_json_value,
)
from flashmotion_jax.runtime.limits import EDITOR, limited

FIX = "write it again"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_encodings_of_unicode_are_read(tmp_path, encoding):
    file = tmp_path / "a.json"
    file.write_text('{"name": "Fähre 🚢"}', encoding=encoding)
    assert read_json_value(file, FIX) == {"name": "Fähre 🚢"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b"\x00", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b'["\xff"]', "not utf-8: invalid start byte at byte 2"),
        (b"\x1f\x8b\x08\x00zip", "not utf-8"),
        (b"[NaN]", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"[1e999]", "'1e999' is too large"),
        (b"[" + 5000 * b"9" + b"]", "is too large"),
        (b"[-123456789012345678901]", "is too large"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is repeated"),
        (b'["\\ud800"]', "half of a surrogate pair"),
        (b"[" * 100_000, "nested more than 64 deep"),
        (b'{"a":' * 100_000, "nested more than 64 deep"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested more than 64 deep"),
        (b'{"%s": 1, "%s": 2}' % (2 * (b"k" * 10**6,)), "is repeated"),
    ],
)
def test_what_is_no_plain_json_is_one_short_line(data, reason):
    with pytest.raises(UserError, match=reason) as raised:
        parse_json(data, "a.json", FIX)
    message = str(raised.value)
    assert message.startswith("a.json is not JSON (") and message.endswith(FIX)
    assert len(message) < 200 and "\n" not in message


def test_the_deepest_and_the_largest_numbers_are_read():
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deepest, "a", FIX)) == deepest
    numbers = [2**64 - 1, -(2**63), 1.7976931348623157e308, 5e-324]
    assert parse_json(json.dumps(numbers), "a", FIX) == numbers
    assert parse_json(r'"\ud83d\udea2"', "a", FIX) == "🚢"


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[" + "{}," * 600_000 + "0]", "1 million values"), ('"' + 2**25 * "x" + '"', "32 MB")],
    ids=["values", "bytes"],
)
def test_the_size_is_checked_before_parsing(text, reason):
    with limited(EDITOR), pytest.raises(UserError, match=f"a.json: more than {reason}"):
        parse_json(text.encode(), "a.json", FIX)


def test_documents_may_follow_each_other():
    assert list(parse_json_documents(" [1],\n[2][3] ", "a", FIX)) == [[1], [2], [3]]
    assert list(parse_json_documents(" ", "a", FIX)) == []
    with pytest.raises(UserError, match="Expecting value"):
        list(parse_json_documents("[1] x", "a", FIX))


def test_a_file_must_be_there_and_hold_an_object(tmp_path):
    with pytest.raises(UserError, match=r"a\.json is missing; write it again"):
        read_json_value(tmp_path / "a.json", FIX)
    with pytest.raises(UserError, match="is not a file; write it again"):
        read_json_value(tmp_path, FIX)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(list(range(10_000))))
    with pytest.raises(UserError, match=r"is not a JSON object but \[0, .*\]; write") as raised:
        read_json_object(file, FIX)
    assert len(str(raised.value)) < 400
