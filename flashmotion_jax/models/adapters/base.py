"""The interface of trajectory adapters, and the lookup of their classes."""

from __future__ import annotations

import pkgutil
from typing import Any, Protocol

import jax

from flashmotion_jax.config.adapters import adapter_kind
from flashmotion_jax.models.dit import ResidualStream


class Adapter(Protocol):
    """The interface that sampling and training use."""

    def prepare(self, trajectory: jax.Array, text: jax.Array) -> Any:
        """Computes what all denoising steps of a video share.

        Args:
          trajectory: `[B, T, h, w, C]` latents of the trajectory map.
          text: `[B, S, text_dim]` embeddings of the prompt.

        Returns:
          A pytree of arrays for `__call__`.
        """
        ...

    def __call__(
        self, prepared: Any, latents: jax.Array, timesteps: jax.Array, scale: jax.Array
    ) -> ResidualStream:
        """Returns the residuals of one denoising step.

        Args:
          prepared: Result of `prepare`.
          latents: Noisy latents `[B, T, h, w, C]`.
          timesteps: `[B, T]` on the 0..1000 scale.
          scale: Scalar weight of the residuals.

        Returns:
          The stream to pass to the DiT.
        """
        ...


def takes_known_frames(adapter: Any) -> bool:
    """Whether an adapter, or a class of them, is given a trajectory on some frames.

    `prepare` of such an adapter takes the result of `condition.sparse_condition`.
    """
    return getattr(adapter, "takes_known_frames", False)


def adapter_class(name: str) -> Any:
    """Returns the module class of a kind, called as `Class(config, dit_config, policy=, rngs=)`.

    Args:
      name: Name of the kind, see `config.adapters.ADAPTERS`.

    Raises:
      UserError: The kind is unknown.
    """
    return pkgutil.resolve_name(adapter_kind(name).module)
