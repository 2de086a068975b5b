"""The models of a pipeline: loaded when a stage needs them, and freed or kept afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from jax.sharding import Mesh

from flashmotion_jax.runtime import sharding


class ModelStore:
    """Loads models on demand, onto the devices of a mesh.

    Args:
      loaders: Function that makes each model, by name.
      mesh: The devices.
      keep_loaded: Keep models in memory between uses.

    Attributes:
      loaders: See `Args`.
      loaded: Models that are kept in memory, by name.
      load_seconds: Time spent on loading; callers reset it.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], Any]], mesh: Mesh, keep_loaded: bool):
        self.load_seconds = 0.0
        self.loaders = loaders
        self._mesh = mesh
        self._keep_loaded = keep_loaded
        self.loaded: dict[str, Any] = {}

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
            model = self.loaders[name]()
            if self._mesh.size > 1:
                model = sharding.place(model, self._mesh)
        if self._keep_loaded and keep:
            self.loaded[name] = model
        self.load_seconds += time.perf_counter() - start
        yield model
