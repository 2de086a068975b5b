"""Sprites: a procedural data set for small models, with exact masks, boxes and captions."""

from flashmotion_jax.data.sprites.captions import VOCABULARY, describe
from flashmotion_jax.data.sprites.clips import VERSION, Clip, Sprites, draw_maps, test_groups
from flashmotion_jax.data.sprites.export import export
from flashmotion_jax.data.sprites.recognition import is_of_sprites, looks_like_sprites
from flashmotion_jax.data.sprites.scene import MAP_KIND, PALETTE, SpritesConfig

__all__ = [
    "MAP_KIND",
    "PALETTE",
    "VERSION",
    "VOCABULARY",
    "Clip",
    "Sprites",
    "SpritesConfig",
    "describe",
    "draw_maps",
    "export",
    "is_of_sprites",
    "looks_like_sprites",
    "test_groups",
]
