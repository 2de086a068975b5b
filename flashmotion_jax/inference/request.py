"""Validation of a user's arguments, before any weight is loaded."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from flashmotion_jax.config import (
    ADAPTERS,
    Decoder,
    Grid,
    MapKind,
    Resize,
    SamplingConfig,
    sparse_adapters,
)
from flashmotion_jax.inference.key_frames import KeyImages, key_images
from flashmotion_jax.inference.known_frames import FrameChoice, drawn_throughout, know_some_frames
from flashmotion_jax.media.geometry import fit_frames, video_size
from flashmotion_jax.media.images import read_image
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import check_video_size
from flashmotion_jax.trajectory import Camera, Canvas, Trajectory, apply_camera, load_maps
from flashmotion_jax.trajectory.formats import ImportOptions
from flashmotion_jax.trajectory.maps import read_motion


@dataclasses.dataclass(frozen=True)
class Request:
    """A validated request for a batch of B videos.

    Attributes:
      prompts: B texts.
      images: uint8 `[B, 1, H, W, 3]`, or None for text-to-video.
      maps: uint8 `[B, F, H, W, 3]` trajectory maps, or None without an adapter. With `known`, only
        the first map and the last of each latent frame can be known; others are black.
      seeds: one a video; a video does not depend on what else is in its batch.
      num_frames: F, of the model's grid, as are H and W.
      height: H in pixels.
      width: W in pixels.
      adapter_scale: weight of the adapter's residuals.
      sampling: sampler, steps and guidance.
      decoder: which autoencoder decodes the latents.
      known: bool `[B, T]`, the latent frames on which an adapter knows the trajectory; None for one
        that knows all of it.
      keys: images of later frames; None without.
    """

    prompts: tuple[str, ...]
    images: np.ndarray | None
    maps: np.ndarray | None
    seeds: tuple[int, ...]
    num_frames: int
    height: int
    width: int
    adapter_scale: float
    sampling: SamplingConfig
    decoder: Decoder = "full"
    known: np.ndarray | None = None
    keys: KeyImages | None = None


def make_request(
    image: Any,
    prompt: str | Sequence[str],
    trajectory: Any,
    seed: int,
    *,
    sampling: SamplingConfig,
    grid: Grid,
    has_adapter: bool,
    num_inference_steps: int | None = None,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    guidance_scale: float | None = None,
    adapter_scale: float = 1.0,
    map_kind: MapKind | None = None,
    known_frames: FrameChoice = None,
    camera: Camera | None = None,
    last_image: Any = None,
    key_frames: Mapping[int, Any] | None = None,
    takes_known_frames: bool = False,
    decoder: Decoder = "full",
    has_tiny_vae: bool = False,
) -> Request:
    """Validates the arguments of a call of the pipeline.

    Args:
      image: A path or uint8 `[H, W, 3]`, a list with one per prompt, or None.
      prompt: A prompt, or a list of prompts for a batch.
      trajectory: Any form that `load_maps` reads, a list of them, or None.
      seed: Seed of the first video; video i uses `seed + i`.
      sampling: Defaults of the following arguments.
      grid: Grid of the model, which the video must fit.
      has_adapter: Whether a trajectory is required; otherwise it is not allowed.
      num_inference_steps: Number of denoising steps.
      height: Height in pixels; by default by `sampling.size_from`.
      width: Width in pixels; pass both `height` and `width`, or neither.
      num_frames: A multiple of `grid.frames`, plus 1.
      guidance_scale: Scale of classifier-free guidance, for multi-step samplers; 1 is no guidance.
      adapter_scale: Weight of the adapter; 0 ignores the trajectory.
      map_kind: what to render of a trajectory, see `trajectory.render`; by default what the model
        was trained on.
      known_frames: Frames on which the trajectory is known, or "all"; None for its keyframes, or
        for maps that are not black.
      camera: Motion of the camera, which is added to that of the objects of a trajectory.
      last_image: Image of the last frame, as `image`.
      key_frames: Frame number -> image of that frame, as `image`.
      takes_known_frames: Whether the adapter is given the trajectory on some frames only; for
        others, `known_frames` is not allowed.
      decoder: "full" for the VAE, or "tiny" for the tiny one, which is faster and softer.
      has_tiny_vae: Whether "tiny" is allowed.

    Raises:
      UserError: An argument is invalid; the message says what was expected.
    """
    prompts = _check_prompts(prompt)
    _check_decoder(decoder, has_tiny_vae)
    if map_kind is not None and trajectory is None:
        raise UserError(f"map_kind={map_kind!r} without a trajectory to draw; give one, or omit it")
    if known_frames is not None and not (has_adapter and takes_known_frames):
        raise UserError(
            f"known_frames={known_frames!r:.60} without a trajectory, or with an adapter that is "
            f"given all of it; use {' or '.join(sparse_adapters())} and a trajectory, or omit it"
        )
    sampling = _override(sampling, num_inference_steps, guidance_scale)
    images = [_read(item) for item in _one_each("image", image, len(prompts))]
    if sampling.needs_image and any(one is None for one in images):
        raise UserError(
            "no image: this model continues an image and cannot make a video from text alone; give "
            "the first frame with --image F, or choose another checkpoint with --model DIR"
        )
    height, width = _size(height, width, images[0], sampling, grid)
    num_frames = sampling.num_frames if num_frames is None else num_frames
    grid.check(num_frames, height, width)
    check_video_size(num_frames * len(prompts), height, width, "the video")
    if not abs(adapter_scale) <= float(np.finfo(np.float32).max):
        raise UserError(f"adapter_scale={adapter_scale}; expected a finite number, for instance 1")
    shape = {"num_frames": num_frames, "height": height, "width": width}
    # Point tracks are in pixels of the image, before it is resized.
    canvas = None if images[0] is None else Canvas(images[0].shape[1], images[0].shape[0])
    drawn = map_kind or sampling.map_kind
    options = ImportOptions(canvas or Canvas(width, height), num_frames, map_kind=drawn)
    motions = _motions(trajectory, len(prompts), has_adapter, options, camera)
    load = functools.partial(
        load_maps,
        **shape,
        map_kind=drawn,
        canvas=canvas,
        resize=sampling.resize,
        point_sigma=sampling.point_sigma,
    )
    fit = functools.partial(_fit, height=height, width=width, resize=sampling.resize)
    fitted = fit(images)
    colored_by = None if fitted is None or sampling.map_colors == "palette" else fitted[:, 0]
    maps = known = None
    if motions is not None and takes_known_frames:
        maps = _maps(list(map(drawn_throughout, motions)), load, colored_by)
        maps, known = know_some_frames(motions, maps, known_frames, grid.frames)
    elif motions is not None:
        maps = _maps(motions, load, colored_by)
    keys = _keys(last_image, key_frames, images, num_frames, grid, sampling, fit)
    return Request(
        prompts=prompts,
        images=fitted,
        maps=maps,
        seeds=_seeds(seed, len(prompts)),
        num_frames=num_frames,
        height=height,
        width=width,
        adapter_scale=adapter_scale,
        sampling=sampling,
        decoder=decoder,
        known=known,
        keys=keys,
    )


def _check_decoder(decoder: str, has_tiny_vae: bool) -> None:
    if decoder not in get_args(Decoder):
        raise UserError(f"decoder={decoder!r}; expected one of {', '.join(get_args(Decoder))}")
    if decoder == "tiny":
        require_tiny_vae("decoder='tiny'", has_tiny_vae)


def require_tiny_vae(what: str, has_tiny_vae: bool) -> None:
    """Checks that a model has a tiny VAE.

    Args:
      what: What needs it.
      has_tiny_vae: Whether there is one.

    Raises:
      UserError: There is none.
    """
    if not has_tiny_vae:
        raise UserError(
            f"{what}: the model has no tiny VAE; expected one beside it, for Wan2.2-TI2V-5B from "
            "`flashmotion convert import taew2_2.safetensors MODEL`; or leave this out"
        )


def _check_prompts(prompt: Any) -> tuple[str, ...]:
    prompts = tuple(prompt) if isinstance(prompt, list | tuple) else (prompt,)
    if not prompts or not all(isinstance(text, str) for text in prompts):
        raise UserError(f"prompt={prompt!r}; expected a string, or a list of strings")
    return prompts


def _override(
    sampling: SamplingConfig, num_inference_steps: int | None, guidance_scale: float | None
) -> SamplingConfig:
    if guidance_scale is not None:
        if sampling.sampler == "few_step":
            raise UserError(
                f"guidance_scale={guidance_scale} with the few_step sampler, whose generator is "
                "distilled to run without guidance; leave it out, or use another sampler"
            )
        sampling = dataclasses.replace(sampling, guidance_scale=guidance_scale)
    if num_inference_steps is None:
        return sampling
    return sampling.with_num_inference_steps(num_inference_steps)


def _seeds(seed: int, count: int) -> tuple[int, ...]:
    if not -(2**63) <= seed < 2**63 - count:
        raise UserError(f"seed={seed}; expected a number of 64 bits, below 2^63")
    return tuple(seed + i for i in range(count))


def _one_each(name: str, value: Any, count: int) -> list[Any]:
    """One value for each of `count` prompts: a list as it is, anything else for all."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise UserError(f"{len(value)} values of {name} for {count} prompts; expected one each")
    return list(value)


def _read(image: Any) -> np.ndarray | None:
    if image is None:
        return None
    pixels = read_image(image) if isinstance(image, str | Path) else np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise UserError(
            f"image is {pixels.dtype} {pixels.shape}; expected a path, or uint8 [H, W, 3]"
        )
    return pixels


def _size(
    height: int | None,
    width: int | None,
    image: np.ndarray | None,
    sampling: SamplingConfig,
    grid: Grid,
) -> tuple[int, int]:
    """Returns the size that was given, or that of the model for the image."""
    if height is not None and width is not None:
        return height, width
    if height is not None or width is not None:
        raise UserError(f"height={height} and width={width}; give both, or neither")
    return video_size(None if image is None else (image.shape[0], image.shape[1]), sampling, grid)


def _fit(
    images: list[np.ndarray | None], height: int, width: int, resize: Resize
) -> np.ndarray | None:
    given = [image for image in images if image is not None]
    if not given:
        return None
    if len(given) < len(images):
        raise UserError("a batch has images for some prompts only; give one for each, or for none")
    return np.stack([fit_frames(image[None], height, width, resize) for image in given])


def _keys(
    last_image: Any,
    key_frames: Mapping[int, Any] | None,
    images: list[np.ndarray | None],
    num_frames: int,
    grid: Grid,
    sampling: SamplingConfig,
    fit: Callable[[list[np.ndarray | None]], np.ndarray | None],
) -> KeyImages | None:
    keys = key_images(
        last_image,
        key_frames,
        images,
        num_frames=num_frames,
        factor=grid.frames,
        read=lambda given: [_read(item) for item in _one_each("key frame", given, len(images))],
        fit=fit,
    )
    if keys is not None and not sampling.knows_key_frames:
        warnings.warn(
            "the model was trained with a first image only, and may ignore or fade to a last image "
            "and key frames",
            stacklevel=4,
        )
    return keys


def _motions(
    trajectory: Any, count: int, has_adapter: bool, options: ImportOptions, camera: Camera | None
) -> list[Any] | None:
    """The trajectory of each video, read from its file if it is one; None without an adapter."""
    if camera is not None and trajectory is None:
        raise UserError("a camera without a trajectory to move; give one, or omit the camera")
    if not has_adapter:
        if trajectory is not None:
            kinds = " or ".join(ADAPTERS)
            raise UserError(f"a trajectory without an adapter; use {kinds}, or omit the trajectory")
        return None
    given = _one_each("trajectory", trajectory, count)
    if any(item is None for item in given):
        raise UserError("every video of a batch needs a trajectory, or none; give one for each")
    read = [read_motion(one, options) if isinstance(one, str | Path) else one for one in given]
    return read if camera is None else [_seen_by(camera, motion) for motion in read]


def _seen_by(camera: Camera, motion: Any) -> Trajectory:
    if isinstance(motion, Trajectory):
        return apply_camera(motion, camera)
    raise UserError(
        "a camera moves boxes or points, and maps have none to move; give a trajectory.json or "
        "tracks, or omit the camera"
    )


def _maps(
    motions: list[Any], load: Callable[..., np.ndarray], images: np.ndarray | None
) -> np.ndarray:
    colored_by = [None] * len(motions) if images is None else list(images)
    return np.stack(
        [load(motion, image=image) for motion, image in zip(motions, colored_by, strict=True)]
    )
