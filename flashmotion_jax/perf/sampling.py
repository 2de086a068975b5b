"""The programs that make a video, as the pipeline runs them: one video on the mesh that is set."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import Grid, SamplingConfig
from flashmotion_jax.diffusion.generate import (
    Conditions,
    denoise_step,
    make_schedule,
    start_denoising,
)
from flashmotion_jax.diffusion.samplers import FewStep
from flashmotion_jax.inference.pipeline import decode_chunk, encode_chunk
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.perf.programs import PlannedProgram
from flashmotion_jax.perf.sizes import VideoSize, published
from flashmotion_jax.runtime.flops import count_flops
from flashmotion_jax.runtime.jit import Program
from flashmotion_jax.text.prompts import encode_tokens
from flashmotion_jax.training.layout import bytes_per_device, on_mesh

#: Programs that differ from adapter to adapter.
ADAPTED = ("preparing", "a step")


class SampleSizes(NamedTuple):
    """What is sampled.

    Attributes:
      folder: of a checkpoint, whose weights are not read.
      adapter: its kind, a name of `config.ADAPTERS`, or None for no trajectory.
      size: of the video; by default that of the checkpoint.
      dtype: of matmuls and convolutions, and of their weights.
    """

    folder: Path
    adapter: str | None
    size: VideoSize | None
    dtype: str = "bfloat16"


@contextmanager
def open_sizes(folder: str, adapter: str | None, size: VideoSize | None) -> Generator[SampleSizes]:
    """The sizes of a checkpoint, or the published ones if `folder` is empty."""
    if folder:
        yield SampleSizes(Path(folder), adapter, size)
        return
    with published() as made:
        yield SampleSizes(made, adapter, size)


def abstract_component(sizes: SampleSizes, kind: str) -> Any:
    """A component with shapes, dtypes and places on the mesh that is set in place of arrays."""
    component = components.read_component(sizes.folder, kind)
    policy = Policy(compute=sizes.dtype, params=sizes.dtype)
    return on_mesh(components.abstract_module(kind, component.config, policy, component.dit_config))


def sampling_programs(sizes: SampleSizes) -> tuple[SamplingConfig, list[PlannedProgram]]:
    """What makes a video from image, prompt and trajectory, on the mesh that is set.

    Returns:
      How the checkpoint is sampled, and the programs in the order in which they run.

    Raises:
      UserError: the checkpoint lacks a part, or does not take videos of that size.
    """
    sampling = components.read_sampling(sizes.folder)
    size = sizes.size or VideoSize(sampling.num_frames, sampling.height, sampling.width)
    models = {kind: abstract_component(sizes, kind) for kind in ("dit", "vae", "text_encoder")}
    adapter = abstract_component(sizes, f"adapters/{sizes.adapter}") if sizes.adapter else None
    dit_config = components.read_component(sizes.folder, "dit").config
    vae_config = components.read_component(sizes.folder, "vae").config
    Grid.of(dit_config, vae_config).check(*size)
    shape = vae_config.latent_shape(*size)
    tokens = jax.ShapeDtypeStruct((1, dit_config.text_len), jnp.int32)
    guided = (1, dit_config.text_len, dit_config.text_dim) if sampling.is_guided else None
    programs = [
        _program(
            "text", 1 + (guided is not None), encode_tokens, models["text_encoder"], *2 * [tokens]
        )
    ]
    factor, chunks = vae_config.temporal_factor, shape[0] - 1
    vae, image = models["vae"], jax.ShapeDtypeStruct((1, 1, size.height, size.width, 3), jnp.uint8)
    programs.append(
        _program("encoding the image", 1, encode_chunk, vae, image, None, dtype="float32")
    )
    if adapter is not None:
        names = "encoding the first map", f"encoding {factor} more maps"
        programs += _stream(names, encode_chunk, vae, image, factor, chunks, dtype=sizes.dtype)
    programs += _denoising(models["dit"], adapter, sampling, shape, guided)
    latents = jax.ShapeDtypeStruct((1, 1, *shape[1:]), jnp.float32)
    names = "decoding the first frame", "decoding 1 more"
    programs += _stream(names, decode_chunk, vae, latents, 1, chunks)
    return sampling, programs


def _stream(
    names: tuple[str, str],
    code: Program[..., Any],
    vae: Any,
    frame: jax.ShapeDtypeStruct,
    step: int,
    later: int,
    **options: Any,
) -> list[PlannedProgram]:
    """A video's first frame, and `step` frames of those after it, `later` times."""
    programs = [_program(names[0], 1, code, vae, frame, None, **options)]
    if later:
        some = jax.ShapeDtypeStruct((1, step, *frame.shape[2:]), frame.dtype)
        past = jax.eval_shape(lambda *given: code.function(*given, **options), vae, frame, None)[1]
        programs.append(_program(names[1], later, code, vae, some, past, **options))
    return programs


def _denoising(
    dit: Any,
    adapter: Any,
    sampling: SamplingConfig,
    shape: tuple[int, ...],
    guided: tuple[int, ...] | None,
) -> list[PlannedProgram]:
    def array(*sizes: int) -> Any:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    conditions = Conditions(
        text=array(1, dit.config.text_len, dit.config.text_dim),
        negative_text=array(*guided) if guided else None,
        image_latents=array(1, 1, *shape[1:]),
        trajectory_latents=array(1, *shape) if adapter is not None else None,
        adapter_scale=array(),
        guidance_scale=array(),
    )
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    models = (dit, adapter, conditions)
    prepared, noise, step_keys = jax.eval_shape(
        lambda *given: start_denoising.function(*given, shape=shape), *models, keys
    )
    schedule = make_schedule(sampling)
    state = (noise,) if isinstance(schedule, FewStep) else (noise,) * 4
    row = jax.eval_shape(lambda: jax.tree.map(lambda rows: jnp.asarray(rows[0]), schedule))
    return [
        _program("preparing", 1, start_denoising, *models, keys, shape=shape),
        _program(
            "a step",
            sampling.num_inference_steps,
            denoise_step,
            *models,
            prepared,
            state,
            row,
            step_keys,
        ),
    ]


def _program(
    name: str, runs: float, program: Program[..., Any], *args: Any, **options: Any
) -> PlannedProgram:
    flops = count_flops(lambda *given: program.function(*given, **options), *args)
    return PlannedProgram(
        name=name,
        runs=runs,
        program=program,
        args=args,
        options=options,
        flops=flops,
        model_flops=flops,
        resident=bytes_per_device(args),
    )
