"""Model checkpoints: a folder of components, each with a JSON configuration and its weights.

    DIR/model.json                   format, version, how to sample
    DIR/dit/config.json, params/     likewise vae/, text_encoder/, adapters/NAME/
    DIR/tokenizer/

Converters and training write such folders; `load_models` and the pipeline read them, one component
at a time. A component gets its name when it is complete. Names that begin with a dot are leftovers
of a killed process.
"""

from __future__ import annotations

import dataclasses
import pkgutil
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from flashmotion_jax.checkpoints.arrays import (
    Readers,
    read_arrays,
    require_complete,
    write_arrays,
)
from flashmotion_jax.checkpoints.eight_bits import DTYPES, policy_of, read_rounded, readers_as
from flashmotion_jax.config import (
    ADAPTERS,
    LORAS,
    DiTConfig,
    ModelsConfig,
    SamplingConfig,
    TextEncoderConfig,
    TinyVAEConfig,
    VAEConfig,
    from_dict,
    to_dict,
)
from flashmotion_jax.config.sampling import as_current_sampling
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.eight_bits import FORMATS
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.models.text_encoder import TextEncoder
from flashmotion_jax.models.tiny_vae import TinyVAE
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.atomic import replacing, replacing_folder
from flashmotion_jax.runtime.checksums import (
    read_json,
    require_undamaged,
    write_checksums,
    write_json,
)
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import sharding_of
from flashmotion_jax.text.tokenizer import Tokenizer

FORMAT = "flashmotion_jax"
VERSION = 1

#: Component -> its configuration class and module class. Adapters, whose modules also depend on a
#: DiT, are listed in `config.adapters.ADAPTERS`; as components they are named `adapters/NAME`.
MODELS: Mapping[str, tuple[type, Callable[..., Any]]] = {
    "dit": (DiTConfig, DiT),
    "vae": (VAEConfig, VAE),
    "tiny_vae": (TinyVAEConfig, TinyVAE),
    "text_encoder": (TextEncoderConfig, TextEncoder),
}
_ADAPTER = "adapters/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose weights have not been read.

    Attributes:
      path: Folder of the checkpoint.
      config: Configuration of its models.
      tokenizer: Tokenizer of the text encoder.
      text_encoder_key: Digest of the text encoder's weights, for caches of embeddings.
    """

    path: Path
    config: ModelsConfig
    tokenizer: Tokenizer
    text_encoder_key: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
    """The `config.json` of a component.

    Attributes:
      kind: one of `kinds()`.
      dtype: Of the stored matmul and convolution weights; all others are float32. "int8" and "fp8"
        are of linear layers, see `eight_bits`.
      config: Configuration of the module, of the class that belongs to the kind.
      dit_config: For an adapter, the DiT that it was made for.
      num_bytes: Size of the weights on disk.
      key: sha256 of the weights, which identifies them wherever they are stored.
    """

    kind: str
    dtype: str
    config: Any
    dit_config: DiTConfig | None
    num_bytes: int
    key: str

    def policy(self, dtype: str | Policy, weights: str | None = None) -> Policy:
        """How it is loaded; see `load_component`."""
        if isinstance(dtype, str):
            stored = self.dtype if self.dtype in FORMATS else dtype
            dtype = Policy(compute=dtype, params=weights or stored)
        return policy_of(self.kind, dtype)

    def names(self) -> list[str]:
        """Names of the stored arrays."""
        return [
            *flat_parameters(abstract_module(self.kind, self.config, self.dtype, self.dit_config))
        ]


def open_checkpoint(path: str | Path, adapter: str | None = None) -> Checkpoint:
    """Reads everything but the weights, and checks that no component is missing.

    Args:
      path: Folder of the checkpoint.
      adapter: Kind of adapter that must be there too.

    Raises:
      UserError: The folder is not a checkpoint, or lacks a component.
    """
    path = Path(path)
    sampling = read_sampling(path)
    require_undamaged(path / "tokenizer")
    text_encoder = read_component(path, "text_encoder")
    config = ModelsConfig(
        dit=read_component(path, "dit").config,
        vae=read_component(path, "vae").config,
        text_encoder=text_encoder.config,
        sampling=sampling,
        tiny_vae=read_component(path, "tiny_vae").config if (path / "tiny_vae").is_dir() else None,
    )
    if adapter is not None:
        read_component(path, f"adapters/{adapter}")
    return Checkpoint(
        path=path,
        config=config,
        tokenizer=Tokenizer(path / "tokenizer"),
        text_encoder_key=text_encoder.key,
    )


def load_component(
    path: str | Path,
    kind: str,
    dtype: str | Policy = "bfloat16",
    weights: str | None = None,
) -> Any:
    """Reads one component.

    Args:
      path: Folder of the checkpoint.
      kind: One of `kinds()`.
      dtype: Of matmuls and convolutions, or a whole policy. Norms and other sensitive parameters
        are float32.
      weights: Dtype of their weights, without a policy. None is 8 bits if they are stored so, else
        `dtype`.

    Returns:
      The module, on the current mesh, or without one on the first device.

    Raises:
      UserError: The component is missing or damaged, or an adapter is for another DiT.
    """
    path = Path(path)
    read_sampling(path)  # so that an error is about the folder before it is about a component
    component = read_component(path, kind)
    policy = component.policy(dtype, weights)
    module = abstract_module(kind, component.config, policy, component.dit_config)
    variables = flat_parameters(module)
    wanted = {name: variable.get_value() for name, variable in variables.items()}
    places = {name: sharding_of(variable) for name, variable in variables.items()}
    # Before orbax reads, as it meets some damage with an abort and some with tracebacks of threads.
    require_undamaged(path / kind)
    folder = path / kind / "params"
    if component.dtype == policy.params or not {component.dtype, policy.params} & FORMATS.keys():
        arrays = read_arrays(folder, component.num_bytes, wanted, places)
    else:
        require_complete(folder, component.num_bytes)
        arrays = read_rounded(folder, component.names(), wanted, places)
    for name, variable in variables.items():
        variable.set_value(arrays[name])
    return module


def save_component(
    path: str | Path,
    kind: str,
    config: Any,
    params: Readers,
    dtype: str,
    *,
    dit_config: DiTConfig | None = None,
    overwrite: bool = False,
    compress: bool = False,
) -> None:
    """Writes one component into a checkpoint, one parameter at a time.

    Args:
      path: Folder of the checkpoint.
      kind: One of `kinds()`.
      config: Configuration of the component.
      params: Parameter name -> function that returns the array, as from `parameter_readers`.
      dtype: To store matmul and convolution weights in: "bfloat16" or "float32"; or "int8" or
        "fp8", to which linear layers are rounded unless `params` has them so; others are bfloat16.
      dit_config: For an adapter, the DiT that it belongs to.
      overwrite: Replace an existing component.
      compress: Write smaller files, more slowly; see `write_arrays`.

    Raises:
      UserError: The component exists, or names or shapes of `params` do not match the module.
      OSError: The disk is full or not writable; the checkpoint is unchanged.
    """
    folder = Path(path) / kind
    if folder.exists() and not overwrite:
        raise UserError(f"{folder} exists; choose another folder or ask to overwrite it")
    dtype = str(policy_of(kind, dtype).params)
    abstract = flat_parameters(abstract_module(kind, config, dtype, dit_config))
    expected = {name: variable.get_value() for name, variable in abstract.items()}
    with replacing_folder(folder) as scratch:
        params = readers_as(expected, params)
        written = write_arrays(scratch / "params", params, expected, compress)
        component = Component(
            kind=kind,
            dtype=dtype,
            config=config,
            dit_config=dit_config,
            num_bytes=written.num_bytes,
            key=written.digest,
        )
        write_json(scratch / "config.json", to_dict(component))
        write_checksums(scratch)


def save_tokenizer(path: str | Path, source: Path) -> None:
    """Copies the folder of a tokenizer into a checkpoint, replacing an existing one."""
    with replacing_folder(Path(path) / "tokenizer") as scratch:
        shutil.copytree(source, scratch)
        write_checksums(scratch)


def kinds() -> tuple[str, ...]:
    """Every component that a checkpoint may have."""
    return (*MODELS, *(f"{_ADAPTER}{name}" for name in ADAPTERS | LORAS))


def component_classes(kind: str) -> tuple[type, Callable[..., Any]]:
    """Configuration and module of a component, one of `kinds()`."""
    if kind in MODELS:
        return MODELS[kind]
    row = (ADAPTERS | LORAS)[kind.removeprefix(_ADAPTER)]
    return row.config, pkgutil.resolve_name(row.module)


def abstract_module(
    kind: str, config: Any, dtype: str | Policy, dit_config: DiTConfig | None = None
) -> nnx.Module:
    """A component with shapes and dtypes in place of arrays.

    Args:
      kind: One of `kinds()`.
      config: Configuration of the component.
      dtype: Of matmuls, convolutions and their weights, or a whole policy.
      dit_config: For an adapter, the DiT that it belongs to.

    Raises:
      UserError: A dtype is unknown.
    """
    policy = policy_of(kind, dtype)
    _, build = component_classes(kind)
    configs = (config, dit_config) if dit_config else (config,)
    return nnx.eval_shape(lambda: build(*configs, policy=policy, rngs=nnx.Rngs(0)))


def flat_parameters(module: nnx.Module) -> dict[str, nnx.Variable]:
    """Dotted path -> variable, for every parameter."""
    return {
        ".".join(map(str, keys)): variable
        for keys, variable in nnx.to_flat_state(nnx.state(module))
    }


def parameter_readers(module: nnx.Module) -> Readers:
    """The parameters of a module, in the form that `save_component` takes."""
    return {
        name: lambda variable=variable: np.asarray(variable.get_value())
        for name, variable in flat_parameters(module).items()
    }


def write_sampling(path: str | Path, sampling: SamplingConfig) -> None:
    """Writes `model.json`, the file that marks a folder as a checkpoint."""
    values = {"format": FORMAT, "version": VERSION, "sampling": to_dict(sampling)}
    with replacing(Path(path) / "model.json") as scratch:
        write_json(scratch, values)


def read_sampling(path: str | Path) -> SamplingConfig:
    """Reads how a checkpoint is sampled.

    Raises:
      UserError: `path` is not a checkpoint of this version.
    """
    path = Path(path)
    file = path / "model.json"
    if not file.is_file():
        reason = "is not a folder with a model.json" if path.exists() else "does not exist"
        raise UserError(
            f"{path} {reason}; expected a checkpoint of this project, made with "
            "`flashmotion convert import SRC DST`"
        )
    values = read_json(file)
    if (values.get("format"), values.get("version")) != (FORMAT, VERSION):
        raise UserError(
            f"{file} is of format {values.get('format')!r}, version {values.get('version')!r}; "
            f"expected {FORMAT!r}, version {VERSION}: convert again or use the release that made it"
        )
    if unknown := values.keys() - {"format", "version", "sampling"}:
        raise UserError(f"{file} has an unknown key {min(unknown)!r}; copy or convert it again")
    sampling = values.get("sampling", {})
    if isinstance(sampling, dict):
        sampling = as_current_sampling(sampling)
    return from_dict(SamplingConfig, sampling, str(file))


def read_component(path: str | Path, kind: str) -> Component:
    """Reads the configuration of a component.

    Raises:
      UserError: The kind is unknown, the component is missing, or an adapter is for another DiT.
    """
    path = Path(path)
    if kind not in kinds():
        raise UserError(f"{kind!r} is not a component; expected one of {', '.join(kinds())}")
    file = path / kind / "config.json"
    if not file.is_file():
        found = [known for known in kinds() if (path / known / "config.json").is_file()]
        source = "SRC.pt" if kind.startswith(_ADAPTER) else "SRC"
        raise UserError(
            f"{path} has no {kind}, only {', '.join(found) or 'an empty folder'}; add it with "
            f"`flashmotion convert import {source} {path}`"
        )
    values = read_json(file)
    fields = {field.name for field in dataclasses.fields(Component)}
    if values.get("kind") != kind or values.keys() != fields:
        raise UserError(f"{file} is not the configuration of a component {kind}; convert again")
    if kind.startswith(_ADAPTER) and not values["dit_config"]:
        raise UserError(f"{file} does not say which DiT it is for (dit_config); convert again")
    values["config"] = from_dict(component_classes(kind)[0], values["config"], str(file))
    if values["dit_config"]:
        values["dit_config"] = from_dict(DiTConfig, values["dit_config"], str(file))
        _require_same_dit(path, kind, values["dit_config"])
    if values["dtype"] not in (*DTYPES, *FORMATS):
        raise UserError(f"{file}: dtype={values['dtype']!r:.80}; convert again")
    return from_dict(Component, values, str(file))


def _require_same_dit(path: Path, kind: str, dit_config: DiTConfig) -> None:
    """Checks that an adapter was made for the DiT beside it, if there is one."""
    if not (path / "dit" / "config.json").is_file():
        return
    other = to_dict(read_component(path, "dit").config)
    differing = [
        f"{name}={value} (the DiT has {other[name]})"
        for name, value in to_dict(dit_config).items()
        if other[name] != value
    ]
    if differing:
        raise UserError(
            f"{path / kind} was made for another DiT: {', '.join(differing)}; use the adapter "
            "that belongs to this DiT"
        )
