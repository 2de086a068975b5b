"""The programs that generate a video, as the pipeline runs them: one video on the current mesh."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import DECODERS, Decoder, Grid, SamplingConfig
from flashmotion_jax.diffusion.generate import (
    Conditions,
    denoise_step,
    make_schedule,
    start_denoising,
)
from flashmotion_jax.diffusion.samplers import FewStep
from flashmotion_jax.inference.chunks import decode_chunk, encode_chunk
from flashmotion_jax.models.adapters import adapter_class, takes_known_frames
from flashmotion_jax.perf.programs import PlannedProgram
from flashmotion_jax.perf.sizes import VideoSize, published_checkpoint
from flashmotion_jax.runtime.flops import count_flops
from flashmotion_jax.runtime.jit import Program
from flashmotion_jax.text.prompts import encode_tokens
from flashmotion_jax.training.abstract import bytes_per_device, with_shardings

#: Programs that differ from adapter to adapter.
ADAPTED = ("prepare", "denoising step")


@dataclass(frozen=True)
class SampleSpec:
    """What is sampled.

    Attributes:
      folder: Checkpoint folder; its weights are not read.
      adapter: Kind of adapter, a name of `config.ADAPTERS`, or None for no trajectory.
      size: Size of the video; by default that of the checkpoint.
      dtype: Precision of matmuls and convolutions.
      weights: Dtype of their weights; see `components.load_component`.
      decoder: Which autoencoder decodes; the VAE encodes.
    """

    folder: Path
    adapter: str | None
    size: VideoSize | None
    dtype: str = "bfloat16"
    weights: str | None = None
    decoder: Decoder = "full"

    @property
    def takes_known_frames(self) -> bool:
        """Whether the adapter is given maps on some frames; those of all are planned."""
        return self.adapter is not None and takes_known_frames(adapter_class(self.adapter))


@contextmanager
def open_spec(
    folder: str, adapter: str | None, size: VideoSize | None, **options: Any
) -> Generator[SampleSpec]:
    """The sizes of a checkpoint, or the published ones if `folder` is empty.

    Args:
      folder: Checkpoint folder, or empty.
      adapter: See `SampleSpec`.
      size: See `SampleSpec`.
      **options: Other fields of `SampleSpec`.
    """
    if folder:
        yield SampleSpec(Path(folder), adapter, size, **options)
        return
    with published_checkpoint() as made:
        yield SampleSpec(made, adapter, size, **options)


def abstract_component(spec: SampleSpec, kind: str) -> Any:
    """A component with shapes, dtypes and shardings on the current mesh in place of arrays."""
    component = components.read_component(spec.folder, kind)
    policy = component.policy(spec.dtype, spec.weights)
    return with_shardings(
        components.abstract_module(kind, component.config, policy, component.dit_config)
    )


def sampling_programs(spec: SampleSpec) -> tuple[SamplingConfig, list[PlannedProgram]]:
    """What generates a video from image, prompt and trajectory, on the current mesh.

    Returns:
      How the checkpoint is sampled, and the programs in the order in which they run.

    Raises:
      UserError: The checkpoint lacks a part, or does not take videos of that size.
    """
    sampling = components.read_sampling(spec.folder)
    size = spec.size or VideoSize(sampling.num_frames, sampling.height, sampling.width)
    models = {kind: abstract_component(spec, kind) for kind in ("dit", "vae", "text_encoder")}
    adapter = abstract_component(spec, f"adapters/{spec.adapter}") if spec.adapter else None
    dit_config = components.read_component(spec.folder, "dit").config
    vae_config = components.read_component(spec.folder, "vae").config
    Grid.of(dit_config, vae_config).check(*size.shape)
    shape = vae_config.latent_shape(*size.shape)
    tokens = jax.ShapeDtypeStruct((1, dit_config.text_len), jnp.int32)
    guided = (1, dit_config.text_len, dit_config.text_dim) if sampling.is_guided else None
    programs = [
        _program(
            "text", 1 + (guided is not None), encode_tokens, models["text_encoder"], *2 * [tokens]
        )
    ]
    factor, chunks = vae_config.temporal_factor, shape[0] - 1
    vae, image = models["vae"], jax.ShapeDtypeStruct((1, 1, size.height, size.width, 3), jnp.uint8)
    programs.append(_program("encode image", 1, encode_chunk, vae, image, None, dtype="float32"))
    if spec.takes_known_frames:
        programs.append(
            _program("encode map", 1 + chunks, encode_chunk, vae, image, None, dtype=spec.dtype)
        )
    elif adapter is not None:
        names = "encode first map", "encode next maps"
        programs += _stream(names, encode_chunk, vae, image, factor, chunks, dtype=spec.dtype)
    programs += _denoising(models["dit"], adapter, sampling, shape, guided)
    latents = jax.ShapeDtypeStruct((1, 1, *shape[1:]), jnp.float32)
    suffix = " (tiny)" if spec.decoder == "tiny" else ""
    names = f"decode first frame{suffix}", f"decode next frames{suffix}"
    decoder = abstract_component(spec, DECODERS[spec.decoder])
    programs += _stream(names, decode_chunk, decoder, latents, 1, chunks)
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
    """Programs of a video's first frame, and of `step` later frames, which runs `later` times."""
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

    channels = shape[-1] + takes_known_frames(adapter)
    conditions = Conditions(
        text=array(1, dit.config.text_len, dit.config.text_dim),
        negative_text=array(*guided) if guided else None,
        image_latents=array(1, 1, *shape[1:]),
        trajectory_latents=array(1, *shape[:-1], channels) if adapter is not None else None,
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
    step_args = (*models, prepared, state, row, step_keys)
    return [
        _program("prepare", 1, start_denoising, *models, keys, shape=shape),
        _program("denoising step", sampling.num_inference_steps, denoise_step, *step_args),
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
