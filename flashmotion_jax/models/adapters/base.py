"""What every trajectory adapter does, and where its class is found."""

from __future__ import annotations

import pkgutil
from typing import Any, Protocol

import jax

from flashmotion_jax.config.adapters import adapter_kind
from flashmotion_jax.models.dit import ResidualStream


class Adapter(Protocol):
    """What the pipeline and the trainers ask of an adapter."""

    def prepare(self, trajectory: jax.Array, text: jax.Array) -> Any:
        """What a video needs of its condition, computed once.

        Args:
          trajectory: `[B, T, h, w, C]` latents of the trajectory map.
          text: `[B, S, text_dim]` embeddings of the prompt.

        Returns:
          A pytree of arrays that `__call__` understands.
        """
        ...

    def __call__(
        self, prepared: Any, latents: jax.Array, timesteps: jax.Array, scale: jax.Array
    ) -> ResidualStream:
        """The residuals for these latents.

        Args:
          prepared: the result of `prepare`.
          latents: noisy latents `[B, T, h, w, C]`.
          timesteps: `[B, T]`, 0..1000.
          scale: scalar weight of the residuals.

        Returns:
          The stream to hand to the DiT.
        """
        ...


def adapter_class(name: str) -> Any:
    """The module class of a kind, built as `Class(config, dit_config, policy=..., rngs=...)`.

    Args:
      name: of the kind, see `config.adapters.ADAPTERS`.

    Raises:
      UserError: no such kind.
    """
    return pkgutil.resolve_name(adapter_kind(name).module)
