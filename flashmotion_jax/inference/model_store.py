"""The models of a pipeline: loaded when a stage needs them, and freed or kept afterwards."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.eight_bits import require_matmuls
from flashmotion_jax.config import ADAPTERS, AdapterConfig, DiTConfig
from flashmotion_jax.converters.lora import LoRA, component_of, open_lora, plan_lora
from flashmotion_jax.inference.lora import Weighted, load_merged
from flashmotion_jax.models.adapters import adapter_class
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Stored:
    """A component of a checkpoint, which a call loads.

    Attributes:
      path: Folder of the checkpoint.
      kind: One of `checkpoints.components.kinds`.
      dtype: Of matmuls and convolutions.
      weights: Dtype of their weights; see `components.load_component`.
    """

    path: Path
    kind: str
    dtype: str
    weights: str | None = None

    def __call__(self) -> Any:
        """Loads the module with its weights, onto the current mesh."""
        return components.load_component(self.path, self.kind, self.dtype, self.weights)

    def policy(self) -> Policy:
        """The dtypes that it is loaded with."""
        return components.read_component(self.path, self.kind).policy(self.dtype, self.weights)

    def abstract(self) -> nnx.Module:
        """Builds the module as floats, with shapes and dtypes in place of arrays."""
        component = components.read_component(self.path, self.kind)
        policy = component.policy(self.dtype, self.weights).without_eight_bits
        return components.abstract_module(self.kind, component.config, policy, component.dit_config)


def stored_models(
    checkpoint: components.Checkpoint, adapter: str | None, dtype: str, weights: str | None
) -> dict[str, Stored]:
    """The models of a checkpoint by their names in a pipeline.

    Args:
      checkpoint: The checkpoint.
      adapter: Kind of adapter, or None.
      dtype: See `Stored`.
      weights: See `Stored`.

    Raises:
      UserError: The device has no matmul for the weights.
    """
    names = ["dit", "vae", "text_encoder"] + ["tiny_vae"] * (checkpoint.config.tiny_vae is not None)
    kinds = {name: name for name in names} | ({"adapter": f"adapters/{adapter}"} if adapter else {})
    stored = {name: Stored(checkpoint.path, kind, dtype, weights) for name, kind in kinds.items()}
    for one in stored.values():
        require_matmuls(str(one.policy().params))
    return stored


class ModelStore:
    """Loads models on demand, onto the devices of a mesh.

    A model whose LoRAs change is loaded again: the original weights need no memory, and are
    the same bits again without the LoRAs.

    Args:
      loaders: Function that makes each model, by name.
      mesh: The devices.
      keep_loaded: Keep models in memory between uses.
      dit_config: Of the generator.

    Attributes:
      loaders: Function that makes each model, by name.
      loaded: Models that are kept in memory, by name.
      loras: LoRAs to merge when a model is loaded, by its name.
      load_seconds: Time spent on loading; callers reset it.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], Any]],
        mesh: Mesh,
        keep_loaded: bool,
        dit_config: DiTConfig,
    ):
        self.load_seconds = 0.0
        self.loaders = loaders
        self.loaded: dict[str, Any] = {}
        self.loras: dict[str, list[Weighted]] = {}
        self._mesh = mesh
        self._keep_loaded = keep_loaded
        self._dit_config = dit_config

    def __contains__(self, name: str) -> bool:
        """Whether there is such a model, loaded or not."""
        return name in self.loaders

    @contextmanager
    def use(self, name: str, keep: bool = True) -> Generator[Any, None, None]:
        """Yields a model, or None if there is none.

        Args:
          name: Which model.
          keep: Whether it may stay in memory afterwards.
        """
        if name not in self:
            yield None
            return
        start = time.perf_counter()
        model = self.loaded.get(name)
        if model is None:
            loras = self.loras.get(name)
            model = load_merged(self.loaders[name], loras) if loras else self.loaders[name]()
            if self._mesh.size > 1:
                model = sharding.place(model, self._mesh)
        if self._keep_loaded and keep:
            self.loaded[name] = model
        self.load_seconds += time.perf_counter() - start
        yield model

    def add_lora(self, path: str | Path, weight: float, name: str | None) -> LoRA:
        """Adds a LoRA to a model.

        Args:
          path: Its file.
          weight: What its changes are multiplied with.
          name: "dit" or "adapter"; None takes what the file says.

        Raises:
          UserError: It does not fit the model; nothing has been loaded or changed.
        """
        if not math.isfinite(weight):
            raise UserError(f"the weight of {path} is {weight}; expected a finite number, often 1")
        file, path = open_lora(path)
        name = name or component_of(file)
        if name not in ("dit", "adapter"):
            raise UserError(f"{path} for {name!r}; expected 'dit' or 'adapter'")
        if name not in self:
            raise UserError(f"{path} is for an adapter, and this pipeline has none; choose one")
        loader = self.loaders[name]
        module = loader.abstract() if isinstance(loader, Stored) else loader()
        adapter = None if name == "dit" else _adapter_config(module)
        parameters = components.flat_parameters(module)
        lora = plan_lora(file, path, adapter, parameters, self._dit_config)
        self.loras.setdefault(name, []).append(Weighted(lora, weight))
        self.loaded.pop(name, None)
        return lora

    def remove_loras(self, path: str | Path | None) -> None:
        """Removes the LoRAs of a file, or all.

        Raises:
          UserError: The file is not loaded.
        """

        def is_kept(file: Path) -> bool:
            return path is not None and Path(path) not in (file, file.parent)

        kept = {
            name: [one for one in loras if is_kept(one.lora.path)]
            for name, loras in self.loras.items()
        }
        changed = [name for name, loras in kept.items() if len(loras) < len(self.loras[name])]
        if path is not None and not changed:
            files = [str(one.lora.path) for loras in kept.values() for one in loras]
            raise UserError(f"{path} is not loaded; loaded are {', '.join(files) or 'none'}")
        self.loras = kept
        for name in changed:
            self.loaded.pop(name, None)


def _adapter_config(module: Any) -> AdapterConfig:
    for name in ADAPTERS:
        if isinstance(module, adapter_class(name)):
            return getattr(module, "adapter_config", module.config)
    raise UserError(
        f"the adapter is a {type(module).__name__}; LoRAs can be merged into those of "
        f"{', '.join(ADAPTERS)}"
    )
