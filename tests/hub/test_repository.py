"""Listings of the Hub: what is taken from them and what is rejected; refusals are explained."""

from __future__ import annotations

import hashlib

import huggingface_hub
import pytest

from flashmotion_jax.hub.catalog import ITEMS
from flashmotion_jax.hub.repository import (
    Address,
    Repository,
    open_repository,
    require_access,
    require_safe_names,
)
from flashmotion_jax.hub.transfer import RemoteFile
from flashmotion_jax.runtime.errors import UserError

NAME = "owner/name"
ADDRESS = Address(NAME)
BODY = b"0123456789" * 200


def test_sizes_and_digests_are_those_of_the_listing(hub):
    hub.files[NAME] = {"weights/model.pt": BODY, "config.json": b"{}"}
    repository = open_repository(ADDRESS)
    assert repository.commit == hub.commit(NAME)
    assert [(file.name, file.size, file.digest) for file in repository.files] == [
        ("weights/model.pt", 2000, hashlib.sha256(BODY).hexdigest()),
        ("config.json", 2, hashlib.sha1(b"blob 2\0{}").hexdigest()),
    ]
    assert repository.files[0].url == (
        f"{hub.url}/{NAME}/resolve/{repository.commit}/weights/model.pt"
    )


def test_data_sets_have_their_own_addresses(hub):
    hub.files[f"datasets/{NAME}"] = {"a b/ü#.csv": BODY}
    (file,) = open_repository(Address(NAME, "dataset")).files
    assert file.url.startswith(f"{hub.url}/datasets/{NAME}/resolve/")
    require_access(Address(NAME, "dataset"), file)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/.",
        "a\\..\\b",
        "C:/x",
        "c:x",
        "a\0b",
        "a\nb",
        "",
        "x" * 256,
        "\ud800",
        ".download/x",
        "a/..",
    ],
)
def test_names_that_leave_the_folder(hub, name):
    with pytest.raises(UserError, match="which is not a name within a folder") as error:
        require_safe_names(["fine.txt", name], NAME)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["a", "..a", "a..b/c..", "ü/日本.png", "a b", "x" * 255, "-rf"])
def test_names_that_do_not(name):
    require_safe_names([name], NAME)


def test_a_name_that_is_listed_twice():
    with pytest.raises(UserError, match="lists 'b' twice"):
        require_safe_names(["a", "b", "b"], NAME)


def test_a_file_that_is_a_folder():
    with pytest.raises(UserError, match="lists 'a/b' as a file and as a folder"):
        require_safe_names(["a/b", "a/b/c"], NAME)


def test_a_listing_with_such_a_name(hub):
    hub.files[NAME] = {"../model.pt": BODY, "other.txt": b""}
    repository = open_repository(ADDRESS)
    with pytest.raises(UserError, match=r"lists a file '\.\./model\.pt'"):
        repository.select(["*.pt"])
    assert [file.name for file in repository.select(["other.txt"])] == ["other.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 10**30}, "with a size of 10{29,30}"),
        ({"size": -1}, "with a size of -1"),
        ({"size": "12"}, "with a size of 12"),
        ({"size": True}, "with a size of True"),
        ({"size": 1.5}, "with a size of 1.5"),
        ({"size": None}, "with a size of None"),
        ({"oid": "x", "lfs": None}, "without a checksum"),
        ({"oid": None, "lfs": None}, "without a checksum"),
        ({"lfs": {"oid": "abc", "size": 1, "pointerSize": 1}}, "without a checksum"),
    ],
)
def test_entries_that_cannot_be_right(hub, change, message):
    hub.files[NAME] = {"model.pt": BODY}
    hub.listing = lambda entries: [entries[0] | change]
    with pytest.raises(UserError, match=message):
        open_repository(ADDRESS).select(["*"])


@pytest.mark.parametrize(
    "listing", [[{"path": "x"}], [{"type": "file"}], ["x"], {"a": 1}, "text", None, 5]
)
def test_a_listing_in_another_form(hub, listing):
    hub.files[NAME] = {"model.pt": BODY}
    hub.listing = lambda entries: listing
    with pytest.raises((OSError, UserError), match=r"form of the Hub|has no \*"):
        open_repository(ADDRESS).select(["*"])


@pytest.mark.parametrize(
    "body", [b"<html>log in</html>", b"", b"[]", b'{"sha": 5}', b'{"sha": "x"}']
)
def test_a_login_page(hub, body):
    hub.files[NAME] = {"model.pt": BODY}
    hub.pages = body
    with pytest.raises(OSError, match="is not in the form of the Hub"):
        open_repository(ADDRESS)


def test_a_listing_without_an_end(hub, monkeypatch):
    monkeypatch.setattr("flashmotion_jax.hub.repository._MOST_FILES", 3)
    hub.files[NAME] = {str(i): b"" for i in range(4)}
    with pytest.raises(OSError, match="more than 3 entries"):
        open_repository(ADDRESS)


@pytest.mark.parametrize("token", ["hf_se\x01cret", "hf_sécret", "hf_se cret", "“hf_secret”"])
def test_a_token_that_is_none_is_not_printed(hub, monkeypatch, token):
    hub.files[NAME] = {"model.pt": BODY}
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=r"the token in HF_TOKEN, .* is none; copy it") as error:
        open_repository(ADDRESS)
    assert "cret" not in str(error.value)


def test_a_missing_file_names_the_nearest(hub):
    hub.files[NAME] = {"FastGenerator/model_v2.pt": BODY, "README.md": b""}
    with pytest.raises(
        UserError, match=r"no FastGenerator/model\.pt; .*FastGenerator/model_v2\.pt"
    ):
        open_repository(ADDRESS).select(["FastGenerator/model.pt"])


def test_unknown_repositories_and_revisions(hub):
    hub.files[NAME] = {"a": b""}
    with pytest.raises(UserError, match="owner/other does not exist, or is private"):
        open_repository(Address("owner/other"))
    with pytest.raises(UserError, match="has no revision v9; check --repo"):
        open_repository(Address(NAME, revision="v9"))


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "is gated: accept its conditions on that page, create a token"),
        ("hf_wrong", "is gated, and the account of this token may not read it"),
    ],
)
def test_gated_repositories(hub, monkeypatch, token, message):
    hub.files[NAME] = {"a.bin": BODY}
    hub.gated.add(NAME)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    repository = open_repository(ADDRESS)
    with pytest.raises(UserError, match=message) as error:
        require_access(ADDRESS, repository.files[0])
    assert hub.url in str(error.value)
    assert len(str(error.value)) < 500
    monkeypatch.setenv("HF_TOKEN", hub.token)
    repository = open_repository(ADDRESS)
    require_access(ADDRESS, repository.files[0])


def test_no_network(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        ConnectionError, match=r"cannot reach .*127\.0\.0\.1:9/owner/name .*refused"
    ):
        open_repository(ADDRESS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("me/wan", ("me/wan", "main")), ("me/wan@v1.0", ("me/wan", "v1.0"))],
)
def test_addresses_of_users(text, expected):
    address = Address("a/b", "dataset").replaced(text)
    assert (address.name, address.revision, address.kind) == (*expected, "dataset")


@pytest.mark.parametrize("text", ["", "wan", "a/b/c", "../b", "a/b@", "a/..", "a b/c", "/b", "a/"])
def test_what_is_not_an_address(text):
    with pytest.raises(UserError, match="is not a repository; expected OWNER/NAME"):
        Address("a/b").replaced(text)


def test_files_in_the_cache_are_found(hub):
    hub.files[NAME] = {"a.bin": BODY}
    repository = open_repository(ADDRESS)
    assert repository.cached(repository.files[0]) is None
    path = huggingface_hub.hf_hub_download(NAME, "a.bin")
    assert repository.cached(repository.files[0]) == path


def test_selection_keeps_the_order_of_the_listing():
    files = [RemoteFile(name, "", 1, "0" * 40) for name in ("b", "a", "c/d")]
    found = Repository(ADDRESS, "0" * 40, files).select(["c/*", "b"])
    assert [file.name for file in found] == ["b", "c/d"]


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_the_catalog(item):
    """Parts name sources that exist, and the command that follows has no other placeholders."""
    sources = {part.source for part in item.parts} | ({"weights"} if item.adapters else set())
    assert sources == set(item.sources)
    assert item.after.format(folder="DIR", adapter="resnet")
    assert bool(item.adapters) == ("{adapter}" in item.after)
    for source in item.sources.values():
        if isinstance(source, RemoteFile):
            assert len(source.digest) == 64
            assert source.digest[:8] in source.name
