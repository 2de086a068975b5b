"""What sizes and lengths of a video models can take."""

from __future__ import annotations

from typing import NamedTuple

from flashmotion_jax.config.checks import require
from flashmotion_jax.config.models import DiTConfig, VAEConfig


class Grid(NamedTuple):
    """What the sizes of a video must be multiples of: the pixels and frames of a token.

    Attributes:
      height: pixels.
      width: pixels.
      frames: frames of a latent frame; the first frame of a video comes in addition.
    """

    height: int
    width: int
    frames: int

    @classmethod
    def of(cls, dit: DiTConfig, vae: VAEConfig) -> Grid:
        """The grid of models of these sizes."""
        height, width = (vae.spatial_factor * side for side in dit.patch_size)
        return cls(height, width, vae.temporal_factor)

    def check(self, num_frames: int, height: int, width: int) -> None:
        """Refuses what does not fit, with the nearest that does.

        Raises:
          UserError: the number of frames or a side in pixels is not of the grid.
        """
        nearest = max(0, round((num_frames - 1) / self.frames)) * self.frames + 1
        require(
            num_frames == nearest,
            f"frames={num_frames}; expected {self.frames} n + 1, for instance {nearest}",
        )
        fitting = [
            max(1, round(side / multiple)) * multiple
            for side, multiple in zip((height, width), self[:2], strict=True)
        ]
        require(
            [height, width] == fitting,
            f"size={height}x{width}; expected a height in multiples of {self.height} and a width "
            f"in multiples of {self.width}, for instance {fitting[0]}x{fitting[1]}",
        )
