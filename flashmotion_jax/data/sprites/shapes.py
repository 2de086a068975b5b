"""Shapes of sprites: outlines, from which both pixels and boxes are computed.

An outline is a polygon expanded by a radius, which rounds its tips: a tip thinner than a pixel
would extend the box but have no pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """An outline within the circle of radius 1 around the origin; y points down.

    Attributes:
      corners: Corners of the polygon, (x, y).
      rounding: Radius that the polygon is expanded by.
      wall: Thickness of the wall of a hollow shape; None for a filled one.
    """

    corners: tuple[tuple[float, float], ...]
    rounding: float
    wall: float | None = None

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the signed distance to the outline, negative inside.

        Args:
          x: of the points.
          y: of the points, the same shape.

        Returns:
          The same shape and dtype.

        Source: I. Quilez, "2D distance functions", sdPolygon.
        """
        squared = np.full_like(x, np.inf)
        inside = np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1) in zip(
            self.corners, self.corners[1:] + self.corners[:1], strict=True
        ):
            edge_x, edge_y = x1 - x0, y1 - y0
            from_x, from_y = x - x0, y - y0
            along = from_x * edge_x + from_y * edge_y
            along = np.clip(along / max(edge_x**2 + edge_y**2, 1e-9), 0, 1)
            squared = np.minimum(
                squared, (from_x - along * edge_x) ** 2 + (from_y - along * edge_y) ** 2
            )
            # Even-odd rule: count the edges that a ray to the right crosses.
            left = from_x * edge_y < from_y * edge_x
            inside ^= ((y >= y0) & (y < y1) & left) | ((y < y0) & (y >= y1) & ~left)
        distance = np.where(inside, -1, 1).astype(x.dtype) * np.sqrt(squared) - self.rounding
        if self.wall is not None:
            distance = np.abs(distance + self.wall / 2) - self.wall / 2
        return distance

    def boxes(self, center_F2: np.ndarray, radius_F: np.ndarray, angle_F: np.ndarray) -> np.ndarray:
        """Returns the box of the outline at each pose.

        Args:
          center_F2: (x, y) in pixels.
          radius_F: in pixels.
          angle_F: in radians, clockwise.

        Returns:
          float64 [F, 4], (x0, y0, x1, y1) in pixels.
        """
        cos_F1, sin_F1 = np.cos(angle_F)[:, None], np.sin(angle_F)[:, None]
        x_N, y_N = np.array(self.corners).T
        turned_F2N = np.stack([x_N * cos_F1 - y_N * sin_F1, x_N * sin_F1 + y_N * cos_F1], axis=1)
        low_F2 = turned_F2N.min(axis=2) - self.rounding
        high_F2 = turned_F2N.max(axis=2) + self.rounding
        boxes_F4 = np.concatenate([low_F2, high_F2], axis=1) * radius_F[:, None]
        return boxes_F4 + np.tile(center_F2, 2)


#: Rounding of corners, relative to the radius.
_ROUNDING = 0.15


def _polygon(*corners: tuple[float, float]) -> Shape:
    x_N, y_N = np.array(corners).T * (1 - _ROUNDING)
    return Shape(tuple(zip(x_N.tolist(), y_N.tolist(), strict=True)), _ROUNDING)


def _spokes(*radii: float) -> Shape:
    """Returns corners at these radii and equal angles, clockwise from the top."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    corners = np.array(radii) * np.stack([np.sin(angles), -np.cos(angles)])
    return _polygon(*zip(*corners.tolist(), strict=True))


#: Half the width of the arms of a cross, and their length.
_ARM, _END = 0.34, 0.94
SHAPES = {
    "circle": Shape(((0.0, 0.0),), 1.0),
    "square": _polygon((-0.71, -0.71), (0.71, -0.71), (0.71, 0.71), (-0.71, 0.71)),
    "triangle": _spokes(1, 1, 1),
    "star": _spokes(*[1, 0.48] * 5),
    "ring": Shape(((0.0, 0.0),), 1.0, wall=0.45),
    "diamond": _polygon((0, -1), (0.6, 0), (0, 1), (-0.6, 0)),
    "cross": _polygon(
        *((-_ARM, -_END), (_ARM, -_END), (_ARM, -_ARM)),
        *((_END, -_ARM), (_END, _ARM), (_ARM, _ARM)),
        *((_ARM, _END), (-_ARM, _END), (-_ARM, _ARM)),
        *((-_END, _ARM), (-_END, -_ARM), (-_ARM, -_ARM)),
    ),
}
"""Name -> outline."""

ROUND = ("circle", "ring")
"""Shapes that rotation does not change."""
