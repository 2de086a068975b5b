"""Tables of MagicData as people write them: taken as meant, or reported with line and cure."""

from __future__ import annotations

import json
import unicodedata

import pytest

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats.magicdata_csv import Row, RowError, find_csv, read_rows

DOG = ("v0", "a dog, that runs", 5)
PLAIN = 'path,text,num_frames\nv0.mp4,"a dog, that runs",5\n'


def rows_of(tmp_path, content, name="MagicData.csv"):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_rows(file)


def good(rows):
    return [(row.id, row.caption, row.num_frames) for row in rows if isinstance(row, Row)]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.replace("path", " Path ").replace("text", "TEXT"),
        PLAIN.replace("path", '"path"').replace("text", "Prompt"),
        PLAIN.replace("path", "video").replace("text", "caption"),
        PLAIN.replace("path", "file_name"),
        "path;text;num_frames\nv0.mp4;a dog, that runs;5\n",
        "path\ttext\tnum_frames\nv0.mp4\ta dog, that runs\t5\n",
        "path|text|num_frames\nv0.mp4|a dog, that runs|5",
        PLAIN.replace("\n", "\n\n").replace("path", "\n\npath", 1),
        PLAIN + ",,\n   \n",
        PLAIN.replace("5", "5,,"),
        PLAIN.replace("5", " 5.0 "),
        PLAIN.replace("\n", ",,\n"),
        PLAIN.replace("num_frames", "num_frames,fps,aes"),
        PLAIN.replace("path,", ",path,").replace("v0", "0,v0"),
        'path, text, num_frames\nv0.mp4, "a dog, that runs", 5\n',
        PLAIN.replace("v0.mp4", "/home/me/data/v0.MP4"),
        PLAIN.replace("v0.mp4", "C:\\data\\v0.mov"),
        PLAIN.replace("v0.mp4", "v0.WebM"),
        PLAIN.replace("v0.mp4", "v0"),
        '{"path": "v0.mp4", "text": "a dog, that runs", "num_frames": 5}\n\n',
        '\ufeff{"Video": "v0.MOV", "caption": "a dog, that runs", "num_frames": 5, "x": null}',
        '[{"file_name": "v0.mkv", "prompt": "a dog, that runs", "num_frames": "5"}]',
    ],
)
def test_tables_of_many_programs_are_read(tmp_path, content):
    rows = rows_of(tmp_path, content)
    assert good(rows) == [DOG] and len(rows) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("v1.mp4,a dog, that runs,5", "it has 4 fields, the header 3: put quotes around captions"),
        ("v1.mp4,5", "it has 2 fields, the header 3: add 'num_frames', which may be empty"),
        ("v1.mp4", "it has 1 fields, the header 3: add 'text'"),
        ('v1.mp4,"a "tall" dog",5', "its quotes do not match (',' expected after '\"'): put"),
        ('v1.mp4,"a dog"s ball,5', "its quotes do not match"),
        (",a dog,5", "the path does not end in the name of a video"),
        ("v0.mov,a cat,5", "line 2 has the same video; only the last part of a path counts"),
    ],
)
def test_a_doubtful_row_is_reported_with_its_line_and_others_are_read(tmp_path, line, reason):
    rows = rows_of(tmp_path, f'{PLAIN}{line}\nv2.mp4,"two\nlines",7\nv3.mp4,a cow,9\n')
    assert good(rows) == [DOG, ("v2", "two\nlines", 7), ("v3", "a cow", 9)]
    error = rows[1]
    assert isinstance(error, RowError) and (error.row, error.line) == (1, 3)
    assert error.reason.startswith(reason) and str(error).startswith("line 3")
    assert [row.line for row in rows] == [2, 3, 4, 6]


def test_a_quote_that_is_never_closed_says_which_lines_it_takes(tmp_path):
    cut = "".join(f"v{i}.mp4,a cat,5\n" for i in range(3, 9))
    rows = rows_of(tmp_path, f'{PLAIN}v2.mp4,"a dog,5\n{cut}')
    assert good(rows) == [DOG] and len(rows) == 2
    assert rows[1].reason.startswith("its quotes do not match, up to line 9 (unexpected end of")
    # A later quote ends it: both rows are lost, and nothing is made of them.
    rows = rows_of(tmp_path, f'{PLAIN}v2.mp4,"a dog,5\nv3.mp4,"a cat",5\nv4.mp4,a cow,5\n')
    assert good(rows) == [DOG, ("v4", "a cow", 5)]
    assert [row.line for row in rows] == [2, 3, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,text,Text\nv0.mp4,a,b\n", "names the column 'text' twice: rename or remove one"),
        ("path,text,fps,fps\nv0.mp4,a,1,2\n", "names the column 'fps' twice"),
        ("v0.mp4,a dog,5\n", r"columns v0.mp4, a dog, 5; expected one of path, .* the first line"),
        ("", r"columns \(none\)"),
        ("\n\n", r"columns \(none\)"),
        ('path,"te"xt\nv0.mp4,a\n', r"columns \(none\)"),
        ('path,"text\nv0.mp4,a\n', r"columns \(none\)"),
        (b"path,text\nv0.mp4,\xe9t\xe9\n", "not a CSV in UTF-8 or UTF-16 .line 2: .*CSV UTF-8"),
        (b"PK\x03\x04" + bytes(50), "is an Excel workbook or a zip: save the table as CSV"),
        (b"PAR1" + bytes(50), "is a Parquet file"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull"),
        ("[1, 2", "is not JSON"),
        ("x" * 100_000, "expected one of path"),
    ],
)
def test_what_is_no_table_is_refused_with_the_cure(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        rows_of(tmp_path, content)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "it is not JSON"),
        ('["v1.mp4", "a dog"]', "it is not an object; expected {"),
        ("7", "it is not an object"),
        ('{"text": "a dog"}', "it lacks one of path, video"),
        ('{"path": "v1.mp4"}', "it lacks one of text, caption"),
        ('{"path": "v1.mp4", "text": "a", "text": "b"}', "it is not JSON (the key 'text' is"),
        ('{"path": "v1.mp4", "text": "a", "Text": "b"}', "it has a name twice"),
        ('{"path": "v0.mp4", "text": "a"}', "line 1 has the same video"),
    ],
)
def test_json_lines_are_reported_one_by_one(tmp_path, line, reason):
    whole = [json.dumps({"path": f"v{i}.mp4", "text": "a dog"}) for i in (0, 2)]
    rows = rows_of(tmp_path, "\n".join([whole[0], line, whole[1]]))
    assert [row.id for row in rows if isinstance(row, Row)] == ["v0", "v2"]
    assert rows[1].line == 2 and rows[1].reason.startswith(reason)


def test_names_are_the_same_however_accents_are_written(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "chât") for form in ("NFC", "NFD"))
    rows = rows_of(tmp_path, f"path,text\n{decomposed}.mp4,a cat\n{composed}.mp4,a cat\n")
    assert rows[0].id == composed and isinstance(rows[1], RowError)


def test_long_values_are_not_repeated_in_full(tmp_path):
    rows = rows_of(tmp_path, f"path,text\n{'x' * 99_000}/,a,b\n")
    assert len(str(rows[0])) < 300


def test_json_lines_are_found_in_place_of_the_csv_and_others_are_named(tmp_path):
    (tmp_path / "notes.tsv").write_text("")
    with pytest.raises(UserError, match=r"no .*MagicData.csv; there is notes.tsv: expected"):
        find_csv(tmp_path, tmp_path / "MagicData.csv")
    (tmp_path / "MagicData.jsonl").write_text("")
    assert find_csv(tmp_path, tmp_path / "MagicData.csv").name == "MagicData.jsonl"
