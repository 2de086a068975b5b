"""Denoising: from conditions and noise to clean latents, with one step that is compiled once.

All conditioning enters the model in this file: the image as latent frame 0, key frames as others,
the trajectory through an adapter, the text, and classifier-free guidance.

Source: Wan2.2 `wan/textimage2video.py`, `i2v`; FlashMotion section 3.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import transfer_guard_device_to_host, transfer_guard_host_to_device

from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.diffusion import samplers
from flashmotion_jax.diffusion.samplers import FewStep, PredictVelocity, State
from flashmotion_jax.diffusion.solvers import Solver
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.runtime.sharding import replicate, split_batch_like


class Generator(Protocol):
    """Interface of a DiT; `models.dit.DiT` implements it."""

    def text_context(self, text: jax.Array, /) -> Any:
        """Computes what all denoising steps share of the text."""
        ...

    def __call__(
        self, latents: jax.Array, timesteps: jax.Array, text: Any, residuals: Any = None
    ) -> jax.Array:
        """Predicts the velocity."""
        ...


class KeyFrames(NamedTuple):
    """Clean latent frames that are given beside the first.

    Attributes:
      latents: `[B, T, h, w, C]`; only the given frames matter.
      is_given_T: Which are given, bool `[T]`.
    """

    latents: jax.Array
    is_given_T: jax.Array


class Conditions(NamedTuple):
    """The inputs that a batch of B videos is conditioned on.

    Attributes:
      text: Embeddings of the prompts, `[B, S, D]`.
      negative_text: Embeddings of the negative prompts, `[B, S, D]`; None without guidance.
      image_latents: Clean latent frame 0, `[B, 1, h, w, C]`; None for text-to-video.
      trajectory_latents: Latents of the trajectory maps, `[B, T, h, w, C]`; None without an
        adapter.
      adapter_scale: Scalar weight of the adapter's residuals.
      guidance_scale: Scalar g of `v_negative + g (v_text - v_negative)`.
      key_frames: Further clean latent frames; None without.
    """

    text: jax.Array
    negative_text: jax.Array | None = None
    image_latents: jax.Array | None = None
    trajectory_latents: jax.Array | None = None
    adapter_scale: jax.Array | float = 1.0
    guidance_scale: jax.Array | float = 1.0
    key_frames: KeyFrames | None = None


def make_schedule(sampling: SamplingConfig) -> FewStep[np.ndarray] | Solver[np.ndarray]:
    """Builds the schedule of the configured sampler.

    Raises:
      UserError: The steps or the shift are out of range.
    """
    if sampling.sampler == "few_step":
        return samplers.few_step_schedule(sampling.few_step)
    return samplers.multi_step_schedule(
        sampling.solver_steps, sampling.shift, sampling.sampler, sampling.solver_grid
    )


def inject_image(latents: jax.Array, image_latents: jax.Array | None) -> jax.Array:
    """Replaces latent frame 0 with the clean image, if there is one."""
    if image_latents is None:
        return latents
    return jnp.concatenate([image_latents.astype(latents.dtype), latents[:, 1:]], axis=1)


def inject_given(latents: jax.Array, conditions: Conditions) -> jax.Array:
    """Replaces all latent frames that are given, the image's and those of key frames."""
    latents = inject_image(latents, conditions.image_latents)
    if (key := conditions.key_frames) is None:
        return latents
    is_given = jnp.broadcast_to(key.is_given_T[:, None, None, None], latents.shape)
    given, is_given = (split_batch_like(x, latents) for x in (key.latents, is_given))
    return jnp.where(is_given, given.astype(latents.dtype), latents)


def frame_timesteps(
    timestep: jax.Array,
    latents: jax.Array,
    has_image: bool,
    key_frames: KeyFrames | None = None,
) -> jax.Array:
    """Broadcasts a timestep to latent frames `[B, T]`, with 0 for those that are given.

    Args:
      timestep: In 0..1000, a scalar or per video `[B]`.
      latents: `[B, T, ...]`.
      has_image: Whether latent frame 0 is the clean image.
      key_frames: Further frames that are clean.
    """
    is_noisy_T = jnp.arange(latents.shape[1]) >= int(has_image)
    if key_frames is not None:
        is_noisy_T &= ~key_frames.is_given_T
    per_video = jnp.atleast_1d(jnp.asarray(timestep, jnp.float32))[:, None] * is_noisy_T[None]
    return split_batch_like(jnp.broadcast_to(per_video, latents.shape[:2]), latents)


class Prepared(NamedTuple):
    """Values that all denoising steps of a video share, computed once.

    Attributes:
      text: From `Generator.text_context`.
      trajectory: From the adapter's `prepare`; None without an adapter.
    """

    text: Any
    trajectory: Any


def prepare(dit: Generator, adapter: Any, conditions: Conditions) -> Prepared:
    """Computes the text's keys and values, and the adapter's features of the trajectory.

    Args:
      dit: The generator.
      adapter: An adapter (see `models.adapters.Adapter`), or None.
      conditions: The inputs of the videos.

    Raises:
      ValueError: There is an adapter but no `trajectory_latents`.
    """
    text = conditions.text
    if conditions.negative_text is not None:
        # One pass over 2 B videos instead of two over B: weights are read once.
        text = _interleave(text, conditions.negative_text)
    if adapter is None:
        return Prepared(dit.text_context(text), None)
    if conditions.trajectory_latents is None:
        raise ValueError("an adapter needs trajectory_latents; pass them, or adapter=None")
    trajectory = _for_guidance(conditions, conditions.trajectory_latents)
    return Prepared(dit.text_context(text), adapter.prepare(trajectory, text))


def conditioned_velocity(
    dit: Generator, adapter: Any, conditions: Conditions, prepared: Prepared | None = None
) -> PredictVelocity:
    """Closes the model over its conditions, as a function that a sampler can call.

    Args:
      dit: The generator.
      adapter: An adapter (see `models.adapters.Adapter`), or None.
      conditions: The inputs of the videos.
      prepared: The result of `prepare`; None computes it here.

    Returns:
      `(latents, timestep) -> velocity`. Latent frames that are given are ignored in the input.

    Raises:
      ValueError: There is an adapter but no `trajectory_latents`.
    """
    has_image = conditions.image_latents is not None
    shared = prepare(dit, adapter, conditions) if prepared is None else prepared

    def predict_velocity(latents: jax.Array, timestep: jax.Array) -> jax.Array:
        # In every step: the sampler also changes given frames, which the model must see clean.
        latents = inject_given(latents, conditions)
        timesteps = frame_timesteps(timestep, latents, has_image, conditions.key_frames)
        timesteps = _for_guidance(conditions, timesteps)
        latents = _for_guidance(conditions, latents)
        residuals = None
        if adapter is not None:
            residuals = adapter(shared.trajectory, latents, timesteps, conditions.adapter_scale)
        velocity = dit(latents, timesteps, shared.text, residuals)
        if conditions.negative_text is None:
            return velocity
        pairs = rearrange(velocity, "(b pair) ... -> b pair ...", pair=2)
        with_text, without = pairs[:, 0], pairs[:, 1]
        return without + conditions.guidance_scale * (with_text - without)

    return predict_velocity


def _for_guidance(conditions: Conditions, x: jax.Array) -> jax.Array:
    """Repeats each video for the negative prompt, if there is guidance."""
    return x if conditions.negative_text is None else _interleave(x, x)


def _interleave(first: jax.Array, second: jax.Array) -> jax.Array:
    # Interleaved, both halves of a pair are on the same device when the batch is split; with
    # concatenation, splitting the velocities afterwards would move data between devices.
    return rearrange(jnp.stack([first, second], axis=1), "b pair ... -> (b pair) ...")


def generate_latents(
    dit: Generator,
    adapter: Any,
    conditions: Conditions,
    schedule: FewStep[np.ndarray] | Solver[np.ndarray],
    keys: jax.Array,
    *,
    shape: tuple[int, int, int, int],
    progress: Callable[[int], None] | None = None,
    on_prediction: Callable[[int, jax.Array], None] | None = None,
) -> jax.Array:
    """Generates the latents of a batch of videos.

    Args:
      dit: The generator.
      adapter: An adapter, or None.
      conditions: The inputs of the videos.
      schedule: From `make_schedule`.
      keys: Random keys `[B]`; each video depends on its own key only.
      shape: `(T, h, w, C)` of one video's latents.
      progress: Called after each step with the number of finished steps. An exception that it
        raises cancels the generation.
      on_prediction: Likewise, with the number of finished steps and the latents as the model
        predicts them so far, float32 `[B, T, h, w, C]`.

    Returns:
      float32 `[B, T, h, w, C]`.
    """
    # Python numbers, the defaults, would be transferred in every step.
    conditions = conditions._replace(
        adapter_scale=jnp.float32(conditions.adapter_scale),
        guidance_scale=jnp.float32(conditions.guidance_scale),
    )
    prepared, noise, step_keys = start_denoising(dit, adapter, conditions, keys, shape=shape)

    def advance(state: State, row: FewStep[jax.Array] | Solver[jax.Array]) -> State:
        row = replicate(row)
        # An implicit transfer would make the host wait for the device, or the device for the host.
        with transfer_guard_host_to_device("disallow"), transfer_guard_device_to_host("disallow"):
            return denoise_step(dit, adapter, conditions, prepared, state, row, step_keys)

    def predicted(step: int, state: State) -> None:
        if on_prediction is not None:
            row = replicate(jax.tree.map(lambda rows: rows[step - 1], schedule))
            x0 = _predicted_x0(state, row, step_keys)
            on_prediction(step, inject_given(x0, conditions))

    latents = samplers.sample(advance, noise, schedule, progress, predicted)
    return inject_given(latents, conditions)


@functools.partial(program, static_argnames=("shape",))
def start_denoising(
    dit: Generator,
    adapter: Any,
    conditions: Conditions,
    keys: jax.Array,
    *,
    shape: tuple[int, int, int, int],
) -> tuple[Prepared, jax.Array, jax.Array]:
    """Returns the values that all steps share, the initial noise, and the keys of the steps."""
    noise_keys, step_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    noise = samplers.draw_noise(noise_keys, shape)
    return prepare(dit, adapter, conditions), noise, step_keys


@program
def denoise_step(
    dit: Generator,
    adapter: Any,
    conditions: Conditions,
    prepared: Prepared,
    state: State,
    row: FewStep[jax.Array] | Solver[jax.Array],
    keys: jax.Array,
) -> State:
    """Runs one step of the schedule."""
    predict_velocity = conditioned_velocity(dit, adapter, conditions, prepared)
    if isinstance(row, Solver):
        return samplers.multi_step(predict_velocity, state, row)
    return (samplers.few_step(predict_velocity, state[0], row, keys),)


_predicted_x0 = program(samplers.predicted_x0)
