"""Weights of the networks of FID and FVD: `<network>-<sha256>.npz`.

The name holds the SHA-256 of the file, so that a result can name its weights, and a damaged or
renamed file is rejected.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.evaluation.features.i3d import I3D
from flashmotion_jax.evaluation.features.inception import Inception
from flashmotion_jax.runtime.array_files import read_npz
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.hashing import file_sha256
from flashmotion_jax.runtime.lock import sole_writer

Network = Literal["inception", "i3d"]

_BUILD: dict[Network, Callable[..., nnx.Module]] = {"inception": Inception, "i3d": I3D}

#: A kernel, and its output channels in the published network.
_WIDTHS: dict[Network, tuple[str, int]] = {
    "inception": ("stem.Conv2d_1a_3x3.kernel", 32),
    "i3d": ("stem.Conv3d_1a_7x7.kernel", 64),
}


def abstract_network(network: Network, **sizes: Any) -> nnx.Module:
    """A network with shapes in place of arrays.

    Args:
      network: Name of the network.
      **sizes: Arguments of its constructor.
    """
    return nnx.eval_shape(lambda: _BUILD[network](**sizes))


def save_network(folder: Path, network: Network, arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes the weights of a network.

    Args:
      folder: Folder of the file, created if it does not exist.
      network: Name of the network.
      arrays: Dotted path -> float32 array, for all its parameters.

    Returns:
      The file. The same weights give the same file.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **cast(Any, {name: arrays[name] for name in sorted(arrays)}))
    named = folder / f"{network}-{hashlib.sha256(buffer.getbuffer()).hexdigest()}.npz"
    with sole_writer(folder), replacing(named) as scratch:
        scratch.write_bytes(buffer.getbuffer())
    return named


def load_network(path: str | Path, network: Network, **options: Any) -> nnx.Module:
    """Reads a network.

    Args:
      path: The file, or a folder that holds one of this network.
      network: Name of the network.
      **options: Arguments of its constructor other than sizes, which are read from the file.

    Raises:
      UserError: There is no such file or there are several, or it is damaged or of another network.
    """
    file = find_network(path, network)
    digest = file_sha256(file)
    if file.stem != f"{network}-{digest}":
        raise UserError(
            f"{file} has the SHA-256 {digest}, which is not in its name: it is damaged or renamed; "
            "convert it again with `flashmotion convert metrics SRC DST`"
        )
    stored = read_npz(file)
    name, width = _WIDTHS[network]
    try:
        sizes = {"divide": width // stored[name].shape[-1]}
        if network == "i3d":
            sizes["classes"] = stored["logits.bias"].shape[0]
        module = abstract_network(network, **options, **sizes)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"{file} is not a file of {network}: {error} is missing; convert it again"
        ) from error
    for target, variable in flat_parameters(module).items():
        expected = variable.get_value().shape
        if target not in stored or stored[target].shape != expected:
            raise UserError(f"{file} lacks {target} of shape {expected}")
        variable.set_value(jnp.asarray(stored[target]))
    return module


def find_network(path: str | Path, network: Network) -> Path:
    """The file of a network: the path itself, or the only one of that network in the folder.

    Raises:
      UserError: There is none, or there are several.
      ValueError: There is no such network.
    """
    if network not in get_args(Network):
        raise ValueError(f"network={network!r}; expected one of {', '.join(get_args(Network))}")
    path = Path(path)
    if path.is_file():
        return path
    there = sorted(path.glob(f"{network}-*.npz")) if path.is_dir() else []
    found = [one for one in there if re.fullmatch(rf"{network}-[0-9a-f]{{64}}", one.stem)]
    if len(found) != 1:
        there_is = (
            f"there are {len(found)} of them: give the file itself"
            if found
            else "there is none: `flashmotion convert metrics SRC DST` writes it"
        )
        raise UserError(f"expected a file {network}-<sha256>.npz in {path}, but {there_is}")
    return found[0]
