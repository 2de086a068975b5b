"""Trajectories in the formats of other projects, one file a format."""

from flashmotion_jax.trajectory.formats.ati import read_ati, write_ati
from flashmotion_jax.trajectory.formats.magicmotion import (
    export_magicmotion,
    import_magicmotion,
)
from flashmotion_jax.trajectory.formats.spline import read_spline, write_spline
from flashmotion_jax.trajectory.formats.wan_move import read_wan_move, write_wan_move

__all__ = [
    "export_magicmotion",
    "import_magicmotion",
    "read_ati",
    "read_spline",
    "read_wan_move",
    "write_ati",
    "write_spline",
    "write_wan_move",
]
