"""Trajectories: data, file formats, rendering to maps, editing."""

from flashmotion_jax.trajectory.camera import Camera, add_anchors, apply_camera
from flashmotion_jax.trajectory.edit import hold, move, pan, scale, zoom
from flashmotion_jax.trajectory.keyframes import EASINGS, Keyframe
from flashmotion_jax.trajectory.labels import objects_from_label_png
from flashmotion_jax.trajectory.maps import load_maps
from flashmotion_jax.trajectory.masks import Mask
from flashmotion_jax.trajectory.palette import PALETTE, palette_color
from flashmotion_jax.trajectory.render import render, render_masks
from flashmotion_jax.trajectory.schema import Canvas, TrackedObject, Trajectory
from flashmotion_jax.trajectory.tracks import (
    Tracks,
    boxes_from_tracks,
    points_from_tracks,
    tracks_from_boxes,
)

__all__ = [
    "EASINGS",
    "PALETTE",
    "Camera",
    "Canvas",
    "Keyframe",
    "Mask",
    "TrackedObject",
    "Tracks",
    "Trajectory",
    "add_anchors",
    "apply_camera",
    "boxes_from_tracks",
    "hold",
    "load_maps",
    "move",
    "objects_from_label_png",
    "palette_color",
    "pan",
    "points_from_tracks",
    "render",
    "render_masks",
    "scale",
    "tracks_from_boxes",
    "zoom",
]
