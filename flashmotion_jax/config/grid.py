"""The video sizes and lengths that a model can process."""

from __future__ import annotations

import dataclasses

from flashmotion_jax.config.checks import require
from flashmotion_jax.config.models import DiTConfig, VAEConfig


@dataclasses.dataclass(frozen=True)
class Grid:
    """Extent of a token in pixels and frames, which the size of a video must be a multiple of.

    Attributes:
      height: Pixels per token.
      width: Pixels per token.
      frames: Frames per latent frame. A video has one more: its first frame has its own latent.
    """

    height: int
    width: int
    frames: int

    @classmethod
    def of(cls, dit: DiTConfig, vae: VAEConfig) -> Grid:
        """Returns the grid of a model."""
        height, width = (vae.spatial_factor * side for side in dit.patch_size)
        return cls(height, width, vae.temporal_factor)

    def check(self, num_frames: int, height: int, width: int) -> None:
        """Checks the size of a video.

        Raises:
          UserError: The number of frames, the height or the width does not fit; the message gives
            the nearest valid value.
        """
        nearest = max(0, round((num_frames - 1) / self.frames)) * self.frames + 1
        require(
            num_frames == nearest,
            f"num_frames={num_frames}; expected {self.frames} n + 1, for instance {nearest}",
        )
        fitting = [
            max(1, round(side / multiple)) * multiple
            for side, multiple in zip((height, width), (self.height, self.width), strict=True)
        ]
        require(
            [height, width] == fitting,
            f"height={height}, width={width}; expected a height that is a multiple of "
            f"{self.height} and a width that is a multiple of {self.width}, for instance "
            f"height={fitting[0]}, width={fitting[1]}",
        )
