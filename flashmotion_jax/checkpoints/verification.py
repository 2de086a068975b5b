"""Verification of a whole checkpoint against the checksums and digests stored in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flashmotion_jax.checkpoints.arrays import digest_arrays, require_complete
from flashmotion_jax.checkpoints.components import (
    abstract_module,
    flat_parameters,
    kinds,
    read_component,
    read_sampling,
)
from flashmotion_jax.runtime.checksums import require_undamaged
from flashmotion_jax.runtime.errors import UserError


def verify_components(path: str | Path) -> Iterator[tuple[str, str | None]]:
    """Compares the files of a checkpoint with their checksums, and its weights with their digests.

    Args:
      path: folder of the checkpoint.

    Yields:
      The kind of a component or "tokenizer", and what is wrong with it, or None.

    Raises:
      UserError: `path` is not a checkpoint.
    """
    path = Path(path)
    read_sampling(path)
    for kind in (*kinds(), "tokenizer"):
        if (path / kind).is_dir():
            yield kind, _problem(path, kind)


def _problem(path: Path, kind: str) -> str | None:
    try:
        require_undamaged(path / kind)
        if kind == "tokenizer":
            return None
        component = read_component(path, kind)
        params = path / kind / "params"
        require_complete(params, component.num_bytes)
        module = abstract_module(kind, component.config, component.dtype, component.dit_config)
        if digest_arrays(params, flat_parameters(module)) != component.key:
            return f"{params} does not hold the weights that were written"
    except UserError as error:
        return str(error)
    return None
