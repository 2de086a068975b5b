"""Trajectory adapters: from the trajectory's latents to one residual per DiT block.

An adapter is any module with the two methods of `Adapter`; the DiT knows no kinds. `prepare` runs
once per video, on what does not depend on the noisy latents. The call runs in every step and
returns a `ResidualStream`, which the DiT's scan consumes block by block.

The kinds are the rows of `flashmotion_jax.config.adapters.ADAPTERS`, and each has a file here.
"""

from flashmotion_jax.models.adapters.base import Adapter, adapter_class, takes_known_frames

__all__ = ["Adapter", "adapter_class", "takes_known_frames"]
