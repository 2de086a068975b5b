"""Denoising: conditions and noise in, clean latents out, by one step that is compiled once.

What a model is conditioned on is put around it here, in one place: the image in latent frame 0, the
trajectory through an adapter, the text, and guidance.

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

from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.diffusion import samplers
from flashmotion_jax.diffusion.samplers import FewStep, PredictVelocity, State
from flashmotion_jax.diffusion.solvers import Solver
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.runtime.sharding import split_batch_like


class Generator(Protocol):
    """What is asked of a DiT: `models.dit.DiT`."""

    def text_context(self, text: jax.Array, /) -> Any:
        """What all steps of a video need of its text."""
        ...

    def __call__(
        self, latents: jax.Array, timesteps: jax.Array, text: Any, residuals: Any = None
    ) -> jax.Array:
        """The velocity."""
        ...


class Conditions(NamedTuple):
    """All a batch of B videos is made from, but the noise.

    Attributes:
      text: `[B, S, D]` embeddings of the prompts.
      negative_text: `[B, S, D]`, what guidance steers away from; None without guidance.
      image_latents: `[B, 1, h, w, C]` clean latent frame 0; None for text-to-video.
      trajectory_latents: `[B, T, h, w, C]` of the trajectory maps; None without an adapter.
      adapter_scale: scalar weight of the adapter's residuals.
      guidance_scale: scalar g of `v_negative + g (v_text - v_negative)`.
    """

    text: jax.Array
    negative_text: jax.Array | None = None
    image_latents: jax.Array | None = None
    trajectory_latents: jax.Array | None = None
    adapter_scale: jax.Array | float = 1.0
    guidance_scale: jax.Array | float = 1.0


def make_schedule(sampling: SamplingConfig) -> FewStep[np.ndarray] | Solver[np.ndarray]:
    """The steps of the few-step sampler, or of a multi-step solver.

    Raises:
      UserError: steps or shift out of range.
    """
    if sampling.sampler == "few_step":
        sigmas = samplers.few_step_sigmas(
            sampling.denoising_steps, sampling.shift, sampling.warp_denoising_steps
        )
        return samplers.few_step_schedule(sigmas)
    return samplers.multi_step_schedule(sampling.num_steps, sampling.shift, sampling.sampler)


def inject_image(latents: jax.Array, image_latents: jax.Array | None) -> jax.Array:
    """Latents with the clean image as frame 0, where there is one."""
    if image_latents is None:
        return latents
    return jnp.concatenate([image_latents.astype(latents.dtype), latents[:, 1:]], axis=1)


def frame_timesteps(timestep: jax.Array, latents: jax.Array, has_image: bool) -> jax.Array:
    """A timestep for each latent frame `[B, T]`: 0 for the image, `timestep` for the rest.

    Args:
      timestep: 0..1000, one for all videos or one a video `[B]`.
      latents: `[B, T, ...]`.
      has_image: whether frame 0 is clean.
    """
    is_noisy_T = jnp.arange(latents.shape[1]) >= int(has_image)
    per_video = jnp.asarray(timestep, jnp.float32)[..., None] * is_noisy_T
    return split_batch_like(jnp.broadcast_to(per_video, latents.shape[:2]), latents)


class Prepared(NamedTuple):
    """What all steps of a video share, computed once.

    Attributes:
      text: the DiT's, of `Generator.text_context`.
      trajectory: the adapter's, of its `prepare`; None without an adapter.
    """

    text: Any
    trajectory: Any


def prepare(dit: Generator, adapter: Any, conditions: Conditions) -> Prepared:
    """Keys and values of the text, and what the adapter needs of the trajectory.

    Args:
      dit: the generator.
      adapter: an adapter (see `models.adapters.Adapter`), or None.
      conditions: what the videos are made from.

    Raises:
      UserError: an adapter without `trajectory_latents`.
    """
    text = conditions.text
    if conditions.negative_text is not None:
        text = _interleave(text, conditions.negative_text)
    if adapter is None:
        return Prepared(dit.text_context(text), None)
    if conditions.trajectory_latents is None:
        raise UserError("an adapter without trajectory_latents; give them, or no adapter")
    trajectory = _for_guidance(conditions, conditions.trajectory_latents)
    return Prepared(dit.text_context(text), adapter.prepare(trajectory, text))


def conditioned_velocity(
    dit: Generator, adapter: Any, conditions: Conditions, prepared: Prepared | None = None
) -> PredictVelocity:
    """The model as a sampler wants it: all conditions inside.

    Args:
      dit: the generator.
      adapter: an adapter (see `models.adapters.Adapter`), or None.
      conditions: what the videos are made from.
      prepared: from `prepare`, where another program has computed it.

    Returns:
      `(latents, timestep) -> velocity`; frame 0 of the latents is ignored where there is an image.

    Raises:
      UserError: an adapter without `trajectory_latents`.
    """
    has_image = conditions.image_latents is not None
    shared = prepare(dit, adapter, conditions) if prepared is None else prepared

    def predict_velocity(latents: jax.Array, timestep: jax.Array) -> jax.Array:
        latents = inject_image(latents, conditions.image_latents)
        timesteps = _for_guidance(conditions, frame_timesteps(timestep, latents, has_image))
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
    """Text and negative text go through the model as one batch, side by side on a device."""
    return x if conditions.negative_text is None else _interleave(x, x)


def _interleave(first: jax.Array, second: jax.Array) -> jax.Array:
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
) -> jax.Array:
    """Denoises a batch of videos from noise.

    Args:
      dit: the generator.
      adapter: an adapter, or None.
      conditions: what the videos are made from.
      schedule: from `make_schedule`.
      keys: `[B]` random keys; a video depends on its own key only.
      shape: of one video's latents, `(T, h, w, C)`.
      progress: called with the number of finished steps after each; what it raises cancels.

    Returns:
      float32 `[B, T, h, w, C]`.
    """
    prepared, noise, step_keys = begin(dit, adapter, conditions, keys, shape=shape)

    def advance(state: State, row: FewStep[jax.Array] | Solver[jax.Array]) -> State:
        return advance_step(dit, adapter, conditions, prepared, state, row, step_keys)

    latents = samplers.sample(advance, noise, schedule, progress)
    return inject_image(latents, conditions.image_latents)


@functools.partial(program, static_argnames=("shape",))
def begin(
    dit: Generator,
    adapter: Any,
    conditions: Conditions,
    keys: jax.Array,
    *,
    shape: tuple[int, int, int, int],
) -> tuple[Prepared, jax.Array, jax.Array]:
    """What the steps share, the noise, and the keys of the steps."""
    noise_keys, step_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    noise = samplers.draw_noise(noise_keys, shape)
    return prepare(dit, adapter, conditions), noise, step_keys


@program
def advance_step(
    dit: Generator,
    adapter: Any,
    conditions: Conditions,
    prepared: Prepared,
    state: State,
    row: FewStep[jax.Array] | Solver[jax.Array],
    keys: jax.Array,
) -> State:
    """One step."""
    predict_velocity = conditioned_velocity(dit, adapter, conditions, prepared)
    if isinstance(row, Solver):
        return samplers.multi_step(predict_velocity, state, row)
    return (samplers.few_step(predict_velocity, state[0], row, keys),)
