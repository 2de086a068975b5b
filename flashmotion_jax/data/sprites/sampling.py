"""Random sampling of scenes; all randomness of a clip is here.

Lengths are in pixels and scale with the clip: constants are for a shorter side of 64 pixels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from flashmotion_jax.data.sprites.scene import (
    PALETTE,
    SIDES,
    TEXTURES,
    Background,
    Camera,
    Scene,
    Sprite,
    SpritesConfig,
)
from flashmotion_jax.data.sprites.shapes import ROUND, SHAPES

#: Relative frequency of clips with 1, 2, ... 6 sprites.
_COUNTS = (0.26, 0.22, 0.18, 0.14, 0.12, 0.08)
#: Range of radii for 1, 2, ... 6 sprites, as large as there is room for.
_RADII = ((12, 17), (11, 15), (10, 13.5), (9.5, 12), (9, 11), (8.5, 10))
#: Relative frequency of each of `TEXTURES`.
_TEXTURES = (0.55, 0.15, 0.15, 0.15)
#: Number of points that are drawn together; the first suitable one is used.
_CANDIDATES = 48

Route = Literal["inside", "enters", "leaves"]


def sample_scene(
    rng: np.random.Generator, config: SpritesConfig, num_objects: int | None = None
) -> Scene:
    """Draws a scene.

    Args:
      rng: Source of all randomness.
      config: Configuration of the clip.
      num_objects: Number of sprites; None draws it, preferring small numbers.
    """
    if num_objects is None:
        counts = np.arange(config.min_objects, config.max_objects + 1)
        chances = np.array(_COUNTS)[counts - 1]
        num_objects = rng.choice(counts, p=chances / chances.sum()).item()
    background = _sample_background(rng, config.unit)
    camera = _sample_camera(rng, config)
    return Scene(config, background, camera, _sample_sprites(rng, config, camera, num_objects))


def _sample_background(rng: np.random.Generator, unit: float) -> Background:
    # Dark or light backgrounds, so that sprites differ in brightness as well as in saturation.
    low, high = ((0.12, 0.26), (0.30, 0.42)) if rng.random() < 0.5 else ((0.66, 0.76), (0.84, 0.94))
    values_21 = np.array([[rng.uniform(*low)], [rng.uniform(*high)]])
    saturations_21 = rng.uniform(0.05, 0.2, (2, 1))
    tints_2C = rng.random((2, 3))
    tints_2C = (tints_2C - tints_2C.min(axis=1, keepdims=True)) / np.ptp(
        tints_2C, axis=1, keepdims=True
    )
    colors_2C = 255 * values_21 * (1 - saturations_21 * tints_2C)
    num_waves = 5
    wavelengths_N = rng.uniform(20, 80, num_waves) * unit
    directions_N = rng.uniform(0, 2 * np.pi, num_waves)
    frequencies_N2 = np.stack([np.cos(directions_N), np.sin(directions_N)], axis=1)
    amplitudes_N = np.sqrt(wavelengths_N / wavelengths_N.sum())
    return Background(
        colors_2C,
        2 * np.pi * frequencies_N2 / wavelengths_N[:, None],
        rng.uniform(0, 2 * np.pi, num_waves),
        amplitudes_N,
    )


def _sample_camera(rng: np.random.Generator, config: SpritesConfig) -> Camera:
    time_F = np.linspace(0, 1, config.num_frames)
    still_F2, one_F = np.zeros((config.num_frames, 2)), np.ones(config.num_frames)
    chance = rng.random()
    if chance < 0.7:
        return Camera("still", "", still_F2, one_F)
    if chance < 0.9:
        side = list(SIDES)[rng.integers(4)]
        way_2 = rng.uniform(5, 16) * config.unit * np.array(SIDES[side])
        direction = {"top": "up", "bottom": "down"}.get(side, side)
        return Camera("pan", direction, time_F[:, None] * way_2, one_F)
    magnification = rng.uniform(1.1, 1.26)
    direction = ("in", "out")[rng.integers(2)]
    exponent_F = time_F if direction == "in" else -time_F
    return Camera("zoom", direction, still_F2, magnification**exponent_F)


def _sample_sprites(
    rng: np.random.Generator, config: SpritesConfig, camera: Camera, count: int
) -> tuple[Sprite, ...]:
    low, high = _RADII[count - 1]
    radii_K = rng.uniform(low, high, count) * config.unit
    colors = rng.permutation(list(PALETTE))[:count].tolist()
    routes = _sample_routes(rng, count)
    sprites: list[Sprite] = []
    starts_K2 = np.empty((0, 2))
    for radius, color, route in zip(radii_K, colors, routes, strict=True):
        # A zoom already changes the sizes.
        growth = 1.0 if camera.kind == "zoom" else _sample_growth(rng)
        radius_F = radius * np.linspace(1, growth, config.num_frames)
        is_still = rng.random() < 0.15 and route == "inside"
        distances_K = radii_K[: len(sprites)] + radius
        start_2 = _sample_start(rng, config, route, starts_K2, distances_K, radius)
        starts_K2 = np.concatenate([starts_K2, start_2[None]])
        path_F2 = np.tile(start_2, (config.num_frames, 1))
        if not is_still:
            path_F2 = _sample_path(rng, config, route, start_2, radius_F)
        sprites.append(_sample_looks(rng, config, camera, color, path_F2, radius_F, is_still))
    return tuple(sprites)


def _sample_routes(rng: np.random.Generator, count: int) -> list[Route]:
    """Draws the destination of each sprite; sometimes one of them leaves the canvas."""
    routes: list[Route] = ["inside"] * count
    crosser = int(rng.integers(count)) if rng.random() < 0.15 else None
    # A single sprite that enters later would leave the given first frame empty.
    enters = count > 1 and rng.random() < 0.5
    if crosser is not None:
        routes[crosser] = "enters" if enters else "leaves"
    return routes


def _sample_growth(rng: np.random.Generator) -> float:
    """Draws the size on the last frame relative to the first: equal, or clearly different."""
    if rng.random() >= 0.3:
        return 1.0
    return rng.uniform(0.7, 0.85) if rng.random() < 0.5 else rng.uniform(1.18, 1.4)


def _sample_looks(
    rng: np.random.Generator,
    config: SpritesConfig,
    camera: Camera,
    color: str,
    path_F2: np.ndarray,
    radius_F: np.ndarray,
    is_still: bool,
) -> Sprite:
    """Builds a sprite on its path through the world, as seen by the camera."""
    shape = list(SHAPES)[rng.integers(len(SHAPES))]
    texture = TEXTURES[rng.choice(len(TEXTURES), p=_TEXTURES)]
    turn = rng.uniform(0.8, 2.4) * (1 if rng.random() < 0.5 else -1)
    if rng.random() >= 0.4 or (shape in ROUND and texture == "plain"):
        turn = 0.0
    angle_F = rng.uniform(-0.35, 0.35) + turn * np.linspace(0, 1, config.num_frames)
    middle_2 = np.array([config.width, config.height]) / 2
    center_F2 = middle_2 + camera.zoom_F[:, None] * (path_F2 - middle_2 - camera.offset_F2)
    return Sprite(shape, color, texture, center_F2, radius_F * camera.zoom_F, angle_F, is_still)


def _sample_start(
    rng: np.random.Generator,
    config: SpritesConfig,
    route: Route,
    placed_K2: np.ndarray,
    distances_K: np.ndarray,
    radius: float,
) -> np.ndarray:
    """Draws a center at about these distances from the placed ones, so that all are visible."""
    if route == "enters":
        return _points_outside(rng, config, radius)[0]
    points_C2 = _points_inside(rng, config, radius)
    if not len(placed_K2):
        return points_C2[0]
    apart_CK = np.hypot(*np.moveaxis(points_C2[:, None] - placed_K2, -1, 0)) - distances_K
    gap_C = apart_CK.min(axis=1)
    good_C = gap_C >= 2 * config.unit
    return points_C2[good_C.argmax() if good_C.any() else gap_C.argmax()]


def _sample_path(
    rng: np.random.Generator,
    config: SpritesConfig,
    route: Route,
    start_2: np.ndarray,
    radius_F: np.ndarray,
) -> np.ndarray:
    """Draws a curve from the start to a distant point through one or two others, [F, 2]."""
    if route == "leaves":
        ends_C2 = _points_outside(rng, config, radius_F[-1])
    else:
        ends_C2 = _points_inside(rng, config, radius_F[-1])
    length_C = np.hypot(*(ends_C2 - start_2).T)
    good_C = (length_C >= 8 * config.unit) & (length_C <= 48 * config.unit)
    way_2 = ends_C2[good_C.argmax()] - start_2
    between_M1 = np.linspace(0, 1, rng.integers(3, 5))[1:-1, None]
    bends_M1 = rng.uniform(-0.25, 0.25, between_M1.shape)
    across_2 = np.array([-way_2[1], way_2[0]])
    points = [start_2, *(start_2 + between_M1 * way_2 + bends_M1 * across_2), start_2 + way_2]
    return smooth_path(np.array(points), np.linspace(0, len(points) - 1, config.num_frames))


def _points_inside(rng: np.random.Generator, config: SpritesConfig, radius: float) -> np.ndarray:
    size_2 = np.array([config.width, config.height])
    margin_2 = np.minimum(radius, 0.45 * size_2)
    return rng.uniform(margin_2, size_2 - margin_2, (_CANDIDATES, 2))


def _points_outside(rng: np.random.Generator, config: SpritesConfig, radius: float) -> np.ndarray:
    """Draws centers of sprites that are just outside the canvas."""
    size_2 = np.array([config.width, config.height])
    outwards_C2 = np.array(list(SIDES.values()))[rng.integers(4, size=_CANDIDATES)]
    edge_C2 = (1 + outwards_C2) / 2 * size_2 + outwards_C2 * (radius + 1.5 * config.unit)
    return np.where(outwards_C2 != 0, edge_C2, size_2 * rng.uniform(0.2, 0.8, (_CANDIDATES, 1)))


def smooth_path(points_N2: np.ndarray, times_F: np.ndarray) -> np.ndarray:
    """Evaluates a Catmull-Rom spline.

    Args:
      points_N2: Points that the spline passes through at times 0, 1, ..., N - 1; at least two.
      times_F: Times in 0..N - 1.

    Returns:
      float64 [F, 2].
    """
    before, behind = 2 * points_N2[0] - points_N2[1], 2 * points_N2[-1] - points_N2[-2]
    knots = np.concatenate([before[None], points_N2, behind[None]])
    start_F = np.minimum(times_F.astype(int), len(points_N2) - 2)
    u = (times_F - start_F)[:, None]
    p0, p1, p2, p3 = (knots[start_F + i] for i in range(4))
    bend = 2 * p0 - 5 * p1 + 4 * p2 - p3
    return p1 + 0.5 * u * (p2 - p0 + u * (bend + u * (3 * (p1 - p2) + p3 - p0)))
