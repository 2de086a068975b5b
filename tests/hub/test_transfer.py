"""Transfers from a server that cuts, lies and refuses: what was published arrives, or an error."""

from __future__ import annotations

import hashlib
import os
import threading
import time

import huggingface_hub
import pytest

from flashmotion_jax.hub import transfer
from flashmotion_jax.hub.repository import Address, open_repository
from flashmotion_jax.hub.transfer import PARTS, RemoteFile, download_files, is_intact

NAME = "owner/name"
BODY = bytes(range(256)) * 40  # 10,240 bytes


@pytest.fixture
def files(hub):
    """Lists the server's repository, with the given files."""

    def listed(**contents):
        hub.files[NAME] = {name.replace("__", "."): body for name, body in contents.items()}
        return open_repository(Address(NAME)).files

    return listed


def ranges(hub, name):
    return [range_ for method, path, range_ in hub.requests if (method, path) == ("GET", name)]


def test_git_and_lfs_files_arrive(hub, files, tmp_path):
    small, empty = b"hello\n", b""
    download_files(files(a__bin=BODY, b__txt=small, c=empty), tmp_path / "to")
    read = {path.name: path.read_bytes() for path in (tmp_path / "to").iterdir() if path.is_file()}
    assert read == {"a.bin": BODY, "b.txt": small, "c": empty}
    assert not any((tmp_path / "to" / PARTS).iterdir())


def test_digests_are_those_of_git_and_of_sha256(tmp_path):
    """Known values of `b"hello\\n"`."""
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    sha1 = "ce013625030ba8dba906f756967f9e9ca394464a"
    sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    for digest in (sha1, sha256):
        assert is_intact(path, RemoteFile("hello", "", 6, digest))
        assert not is_intact(path, RemoteFile("hello", "", 6, digest[::-1]))


def test_cuts_are_continued_within_a_call(hub, files, tmp_path):
    hub.cuts["a.bin"] = [0, 1, 5000, 0, 3000]
    download_files(files(a__bin=BODY), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    starts = [
        int((range_ or "bytes=0-").split("=")[1].split("-")[0]) for range_ in ranges(hub, "a.bin")
    ]
    assert starts == [0, 0, 1, 5001, 5001, 8001]


def test_the_next_call_continues(hub, files, tmp_path):
    hub.cuts["a.bin"] = [4000] + [0] * (transfer.ATTEMPTS - 1)
    with pytest.raises(ConnectionError, match=r"a\.bin: .*4000 of 10240 bytes are kept"):
        download_files(files(a__bin=BODY), tmp_path)
    assert not (tmp_path / "a.bin").exists()
    hub.requests.clear()
    download_files(files(a__bin=BODY), tmp_path)
    assert ranges(hub, "a.bin") == ["bytes=4000-10239"]
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_complete_files_are_verified_and_not_requested_again(hub, files, tmp_path):
    download_files(files(a__bin=BODY, b=b"b"), tmp_path)
    (tmp_path / "b").write_bytes(b"x")
    hub.requests.clear()
    download_files(files(a__bin=BODY, b=b"b"), tmp_path)
    assert [path for _, path, _ in hub.requests] == ["b"]
    assert (tmp_path / "b").read_bytes() == b"b"


def test_wrong_bytes_are_requested_once_more(hub, files, tmp_path):
    hub.wrong["a.bin"] = 1
    download_files(files(a__bin=BODY), tmp_path)
    assert ranges(hub, "a.bin") == [None, None]
    assert (tmp_path / "a.bin").read_bytes() == BODY


@pytest.mark.parametrize("name", ["a.bin", "small"])
def test_wrong_bytes_twice_are_an_error(hub, files, tmp_path, name):
    hub.wrong[name] = 9
    with pytest.raises(OSError, match="arrived twice with other bytes than those that its"):
        download_files(files(a__bin=BODY, small=b"small"), tmp_path)
    assert not (tmp_path / name).exists()
    assert len(ranges(hub, name)) == 2


def test_a_damaged_part_starts_again(hub, files, tmp_path):
    hub.cuts["a.bin"] = [4000] + [0] * (transfer.ATTEMPTS - 1)
    with pytest.raises(ConnectionError):
        download_files(files(a__bin=BODY), tmp_path)
    (part,) = (tmp_path / PARTS).iterdir()
    part.write_bytes(bytes(4000))
    download_files(files(a__bin=BODY), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


@pytest.mark.parametrize("size", [len(BODY), len(BODY) + 5])
def test_a_part_of_full_size_or_more(hub, files, tmp_path, size):
    (listed,) = files(a__bin=BODY)
    (tmp_path / PARTS).mkdir()
    part = transfer._part(listed, tmp_path)
    part.write_bytes((BODY + b"12345")[:size])
    download_files([listed], tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert len(ranges(hub, "a.bin")) == (size > len(BODY))


def test_another_revision_does_not_continue_a_part(hub, files, tmp_path):
    hub.cuts["a.bin"] = [4000] + [0] * (transfer.ATTEMPTS - 1)
    with pytest.raises(ConnectionError):
        download_files(files(a__bin=BODY), tmp_path)
    hub.requests.clear()
    changed = BODY[::-1]
    download_files(files(a__bin=changed), tmp_path)
    assert ranges(hub, "a.bin") == [None]
    assert (tmp_path / "a.bin").read_bytes() == changed
    assert len(list((tmp_path / PARTS).iterdir())) == 1
    transfer.discard_parts(files(a__bin=changed), tmp_path)
    assert not (tmp_path / PARTS).exists()


def test_a_server_that_ignores_ranges(hub, files, tmp_path):
    hub.ignores_ranges = True
    hub.cuts["a.bin"] = [4000]
    download_files(files(a__bin=BODY), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_large_files_come_in_segments(hub, files, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "SEGMENT", 4096)
    download_files(files(a__bin=BODY), tmp_path)
    assert ranges(hub, "a.bin") == ["bytes=0-4095", "bytes=4096-8191", "bytes=8192-10239"]
    assert (tmp_path / "a.bin").read_bytes() == BODY


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_refusals_are_repeated(hub, files, tmp_path, status):
    hub.statuses["a.bin"] = [status, status]
    download_files(files(a__bin=BODY), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_lasting_refusals_are_not(hub, files, tmp_path):
    listed = files(a__bin=BODY)
    del hub.files[NAME]["a.bin"]
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError):
        download_files(listed, tmp_path)


def test_attempts_are_bounded(hub, files, tmp_path):
    hub.statuses["a.bin"] = [503] * 100
    with pytest.raises(ConnectionError, match=r"a\.bin: the server answers 503, 6 times in a row"):
        download_files(files(a__bin=BODY), tmp_path)
    assert len(hub.statuses["a.bin"]) == 100 - transfer.ATTEMPTS


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Length": str(10**30)},
        {"Content_Length": str(2**62)},
        {"Content_Length": "12"},
        {"Content_Range": "bytes 0-1/2"},
    ],
)
def test_sizes_that_contradict_the_listing(hub, files, tmp_path, headers):
    hub.answer_headers = headers
    hub.cuts["a.bin"] = [4000]  # so that a range is requested
    with pytest.raises(ConnectionError, match=r"a\.bin: .*times in a row"):
        download_files(files(a__bin=BODY), tmp_path)
    assert not (tmp_path / "a.bin").exists()


def test_a_server_that_never_stops_sending(hub, files, tmp_path):
    (listed,) = files(a__bin=BODY)
    shorter = RemoteFile(listed.name, listed.url, 5000, listed.digest)
    with pytest.raises(ConnectionError, match="10240 bytes instead of 5000"):
        download_files([shorter], tmp_path)
    hub.answer_headers = {"Transfer-Encoding": "identity", "Content_Length": "5000"}
    with pytest.raises((ConnectionError, OSError)):
        download_files([shorter], tmp_path)
    assert all(path.stat().st_size <= 5000 for path in (tmp_path / PARTS).iterdir())


def test_no_network(hub, files, tmp_path):
    (listed,) = files(a__bin=BODY)
    nowhere = RemoteFile("a.bin", "http://127.0.0.1:9/a.bin", len(BODY), listed.digest)
    with pytest.raises(ConnectionError, match=r"a\.bin: .*refused.*run the same command again"):
        download_files([nowhere], tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_a_full_disk_is_an_error_at_once(hub, files, tmp_path):
    (listed,) = files(a__bin=BODY)
    (tmp_path / PARTS).mkdir()
    transfer._part(listed, tmp_path).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        download_files([listed], tmp_path)
    assert len(ranges(hub, "a.bin")) == 1


def test_an_error_stops_the_other_transfers(hub, files, tmp_path):
    listed = files(a__bin=BODY, b=b"b")
    del hub.files[NAME]["b"]
    hub.statuses["a.bin"] = [503] * 100
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError):
        download_files(listed, tmp_path)


def test_files_of_equal_content_do_not_share_a_part(hub, files, tmp_path):
    names = [f"f{i}" for i in range(12)]
    download_files(files(**dict.fromkeys(names, BODY)), tmp_path)
    assert all((tmp_path / name).read_bytes() == BODY for name in names)


def test_the_token_goes_to_the_hub_alone(hub, files, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.gated.add(NAME)
    (listed,) = files(a__bin=BODY)
    download_files([listed], tmp_path)
    assert hub.headers[-2]["authorization"] == f"Bearer {hub.token}"
    assert hub.token not in repr(listed)
    assert "authorization" not in hub.headers[-1]  # the host that it redirects to


def test_an_interruption_keeps_what_has_arrived(hub, files, tmp_path, monkeypatch):
    """A KeyboardInterrupt in the main thread stops the others between two chunks."""
    body = BODY * 400  # four megabytes, in several chunks
    (listed,) = files(a__bin=body)
    arrived = threading.Event()
    append = transfer._append

    def slow(file, part, advance, stop):
        def note(count):
            advance(count)
            arrived.set()
            stop.wait(5)

        append(file, part, note, stop)

    monkeypatch.setattr(transfer, "_append", slow)

    def interrupted(futures):
        assert arrived.wait(5)
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "as_completed", interrupted)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        download_files([listed], tmp_path)
    assert time.monotonic() - start < 4
    (part,) = (tmp_path / PARTS).iterdir()
    assert 0 < part.stat().st_size < len(body)
    assert body.startswith(part.read_bytes())


def test_bytes_left(hub, files, tmp_path):
    listed = files(a__bin=BODY, b=b"bbb")
    assert transfer.bytes_left(listed, tmp_path) == len(BODY) + 3
    (tmp_path / PARTS).mkdir()
    transfer._part(listed[0], tmp_path).write_bytes(BODY[:100])
    (tmp_path / "b").write_bytes(b"bbb")
    assert transfer.bytes_left(listed, tmp_path) == len(BODY) - 100


def test_part_names_hold_the_whole_digest():
    digest = hashlib.sha256(BODY).hexdigest()
    assert digest in transfer._part(RemoteFile("a", "", 1, digest), transfer.Path()).name
