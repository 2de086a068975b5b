"""Verification of the weights of a checkpoint against the digests stored beside them."""

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
from flashmotion_jax.runtime.errors import UserError


def verify_components(path: str | Path) -> Iterator[tuple[str, str | None]]:
    """Compares the weights of each component of a checkpoint with their digest.

    Args:
      path: folder of the checkpoint.

    Yields:
      The kind of a component, and what is wrong with it, or None.

    Raises:
      UserError: `path` is not a checkpoint.
    """
    path = Path(path)
    read_sampling(path)
    for kind in kinds():
        if not (path / kind).is_dir():
            continue
        try:
            component = read_component(path, kind)
            params = path / kind / "params"
            require_complete(params, component.num_bytes)
            module = abstract_module(kind, component.config, "float32", component.dit_config)
            found = digest_arrays(params, flat_parameters(module))
        except UserError as error:
            yield kind, str(error)
            continue
        intact = found == component.key
        yield kind, None if intact else f"{params} does not hold the weights that were written"
