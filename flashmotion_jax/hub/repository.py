"""Repositories of the Hugging Face Hub: which files they have, and why they may not be had."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Generator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    get_token,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers

import flashmotion_jax
from flashmotion_jax.hub.transfer import PARTS, RemoteFile
from flashmotion_jax.runtime.errors import UserError

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LARGEST = 2**50
_MOST_FILES = 2_000_000
_TOKENS = "https://huggingface.co/settings/tokens"


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a repository is.

    Attributes:
      name: `owner/name`.
      kind: "model" or "dataset".
      revision: Branch, tag or commit.
    """

    name: str
    kind: str = "model"
    revision: str = "main"

    @property
    def page(self) -> str:
        """The repository's page, for people."""
        kind = "" if self.kind == "model" else f"{self.kind}s/"
        return f"{constants.ENDPOINT}/{kind}{self.name}"

    def replaced(self, text: str) -> Address:
        """Returns the address that a user gives instead, `owner/name` or `owner/name@revision`.

        Raises:
          UserError: The text has another form.
        """
        name, _, revision = text.partition("@")
        if not _NAME.fullmatch(name) or ".." in name or text.endswith("@"):
            raise UserError(f"{text!r} is not a repository; expected OWNER/NAME[@REVISION]")
        return Address(name, self.kind, revision or "main")


@dataclasses.dataclass(frozen=True)
class Repository:
    """The files of a repository at one commit.

    Attributes:
      address: Where it is.
      commit: The commit that the revision named; all files are of it.
      files: Every file.
    """

    address: Address
    commit: str
    files: Sequence[RemoteFile]

    def select(self, patterns: Sequence[str]) -> list[RemoteFile]:
        """Returns the files whose names match one of several patterns, as in a shell.

        Raises:
          UserError: None does, or the name or the size of one cannot be right.
        """
        found = [
            file
            for file in self.files
            if any(fnmatch.fnmatchcase(file.name, pattern) for pattern in patterns)
        ]
        if not found:
            names = [file.name for file in self.files]
            near = difflib.get_close_matches(patterns[0], names, 3, 0.4) or names[:3]
            raise UserError(
                f"{self.address.name} ({self.commit[:8]}) has no {patterns[0]}; the nearest of "
                f"its files: {', '.join(near) or 'none'}"
            )
        for file in found:
            _require_credible(file, self.address)
        require_safe_names([file.name for file in found], self.address.name)
        return found

    def cached(self, file: RemoteFile) -> str | None:
        """Returns the path of a file in the cache of huggingface_hub, if it is there."""
        path = try_to_load_from_cache(
            self.address.name, file.name, revision=self.commit, repo_type=self.address.kind
        )
        return path if isinstance(path, str) else None


def open_repository(address: Address) -> Repository:
    """Lists a repository, as the user whose token huggingface_hub knows.

    Raises:
      UserError: The repository is unknown, private or gated.
      OSError: The network failed, or the listing is not one.
    """
    with explained(address):
        try:
            headers = request_headers()
            commit = _find_commit(address)
            return Repository(address, commit, _list(address, commit, headers))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, OSError | UserError):  # BadRequestError is a ValueError, too
                raise
            raise OSError(
                f"{address.page}: the answer is not in the form of the Hub ({error!r:.80}); check "
                "HF_ENDPOINT and the network's login page"
            ) from error


def _find_commit(address: Address) -> str:
    commit = (
        HfApi()
        .repo_info(
            address.name,
            revision=address.revision,
            repo_type=address.kind,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        .sha
    )
    if not commit or not _COMMIT.fullmatch(commit):
        raise ValueError(f"sha={commit!r}")
    return commit


def _list(address: Address, commit: str, headers: Mapping[str, str]) -> list[RemoteFile]:
    where: dict[str, Any] = {"revision": commit, "repo_type": address.kind}
    listing = HfApi().list_repo_tree(address.name, recursive=True, **where)
    files = []
    for number, entry in enumerate(listing):
        if number == _MOST_FILES:
            raise ValueError(f"more than {_MOST_FILES} entries")
        if isinstance(entry, RepoFile):
            digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
            url = hf_hub_url(address.name, entry.path, **where)
            files.append(RemoteFile(entry.path, url, entry.size, digest, headers))
    return files


def require_access(address: Address, file: RemoteFile) -> None:
    """Checks that this user may download a file; the listing of a gated repository is public.

    Raises:
      UserError: The user may not; the message says what to do.
      OSError: The network failed.
    """
    with explained(address):
        get_hf_file_metadata(file.url, headers=dict(file.headers), token=False)


def request_headers() -> dict[str, str]:
    """Returns the headers of requests to the Hub: with the user's token, if there is one.

    Raises:
      UserError: The token has characters that none has; they may be in no header, nor in a message.
    """
    if not re.fullmatch(r"[!-~]*", get_token() or ""):
        raise UserError(
            f"the token in HF_TOKEN, or that of `hf auth login`, is none; copy it from {_TOKENS}"
        )
    return build_hf_headers(
        library_name="flashmotion_jax", library_version=flashmotion_jax.__version__
    )


def require_safe_names(names: Sequence[str], source: str) -> None:
    """Checks that names of files, which a server chose, stay in the folder they are put into.

    Raises:
      UserError: A name is absolute, leads elsewhere, or cannot be the name of a file; or two
        files have one name, or one is the folder of another.
    """
    for name in names:
        parts = name.split("/")
        unsafe = (
            any(
                part in ("", ".", "..") or len(part.encode(errors="replace")) > 255
                for part in parts
            )
            or re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", name)
            or re.match(r"[A-Za-z]:", name)
            or parts[0] == PARTS
        )
        if unsafe:
            raise UserError(
                f"{source} lists a file {name[:80]!r}, which is not a name within a folder; nothing"
                " was downloaded. Report it to the repository's owner"
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{source} lists {twice!r} twice")
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if both := folders & set(names):
        raise UserError(f"{source} lists {min(both)!r} as a file and as a folder")


@contextlib.contextmanager
def explained(address: Address | None = None) -> Generator[None]:
    """Turns errors of the Hub and of the network into one line each."""
    try:
        yield
    except GatedRepoError as error:
        raise UserError(_explain_gate(address)) from error
    except RevisionNotFoundError as error:
        revision = address.revision if address else "the revision"
        raise UserError(f"{_page(address)} has no revision {revision}; check --repo") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{_page(address)} does not exist, or is private and this user may not read it; give "
            "another with --repo, or a token with HF_TOKEN or `hf auth login`"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(
                f"{error.response.request.url.host} answers {status}: the token in HF_TOKEN, or "
                f"that of `hf auth login`, is not valid or may not read it; see {_TOKENS}"
            ) from error
        url = str(error.response.request.url).partition("?")[0]
        raise OSError(f"{url}: the server answers {status}; try again later") from error
    except HTTPError as error:
        reason = str(error) or type(error).__name__
        raise ConnectionError(
            f"cannot reach {_page(address)} ({reason}); check the network, proxies and "
            "HF_ENDPOINT, and run the same command again"
        ) from error


def _explain_gate(address: Address | None) -> str:
    if get_token():
        return (
            f"{_page(address)} is gated, and the account of this token may not read it: accept its "
            "conditions on that page; a fine-grained token also needs the permission to read gated "
            "repositories"
        )
    return (
        f"{_page(address)} is gated: accept its conditions on that page, create a token on "
        f"{_TOKENS}, and run `hf auth login` or set HF_TOKEN"
    )


def _page(address: Address | None) -> str:
    return address.page if address else "the server"


def _require_credible(file: RemoteFile, address: Address) -> None:
    size = file.size
    if not (isinstance(size, int) and not isinstance(size, bool) and 0 <= size < _LARGEST):
        raise UserError(f"{address.name} lists {file.name!r} with a size of {str(size)[:30]} bytes")
    if not (isinstance(file.digest, str) and _DIGEST.fullmatch(file.digest)):
        raise UserError(f"{address.name} lists {file.name!r} without a checksum")
