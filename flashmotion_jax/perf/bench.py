"""Measures the programs of sampling with each adapter, and the updates of training runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from flashmotion_jax.checkpoints.eight_bits import require_matmuls
from flashmotion_jax.config import (
    Decoder,
    DiTConfig,
    TextEncoderConfig,
    TrainConfig,
    VAEConfig,
    load_config,
    with_overrides,
)
from flashmotion_jax.models.attention import choose_kernel
from flashmotion_jax.perf.end_to_end import PipelineRun, measure_pipeline
from flashmotion_jax.perf.measure import Measured, matmul_flops, measure
from flashmotion_jax.perf.peer import WORK, Compared, compare, measure_peer, require_peer
from flashmotion_jax.perf.programs import OutOfMemory, PlannedProgram, training_programs
from flashmotion_jax.perf.sampling import ADAPTED, SampleSpec, sampling_programs
from flashmotion_jax.perf.sizes import VideoSize, published_checkpoint, with_published_sizes
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.devices import peak_flops
from flashmotion_jax.runtime.errors import is_resource_exhausted
from flashmotion_jax.runtime.progress import Status

#: On a CPU: the published widths, but little enough to end in minutes.
CPU_LAYERS, CPU_SIZE, CPU_VOCABULARY = 2, VideoSize(5, 64, 64), 1024


@dataclasses.dataclass(frozen=True)
class Bench:
    """All measurements. A group is what they belong to, such as "sample, none, tiny decoder".

    Attributes:
      device: Kind of the devices.
      peak: FLOP/s from the data sheet; None if not known.
      matmul: FLOP/s of a large matmul, measured in this run.
      layers: Number of layers of the DiT.
      size: Size of the videos.
      attention: Implementation of the DiT's attention.
      measured: Measured programs with their groups.
      out_of_memory: Programs that did not fit into memory, with their groups.
      totals: Seconds per video or training step, by group; only groups that fit as a whole.
      pipeline: Runs of the whole pipeline, by group; only those that fit.
      compared: Comparison with the peer, if requested.
    """

    device: str
    peak: float | None
    matmul: float
    layers: int
    size: VideoSize
    attention: str
    measured: list[tuple[str, Measured]] = dataclasses.field(default_factory=list)
    out_of_memory: list[tuple[str, OutOfMemory]] = dataclasses.field(default_factory=list)
    totals: dict[str, float] = dataclasses.field(default_factory=dict)
    pipeline: dict[str, PipelineRun] = dataclasses.field(default_factory=dict)
    compared: list[Compared] = dataclasses.field(default_factory=list)


def run_bench(
    *,
    adapters: Sequence[str],
    decoders: Sequence[Decoder] = ("full",),
    train_configs: Sequence[str],
    overrides: Sequence[str],
    num_layers: int | None,
    num_frames: int | None,
    height: int | None,
    width: int | None,
    repeat: int,
    with_peer: bool,
    status: Status,
    weights: str | None = None,
) -> Bench:
    """Measures one group of programs after the other.

    Args:
      adapters: Kinds of adapters to sample with, "none" among them.
      decoders: Which autoencoders decode, one after the other, with each adapter.
      train_configs: Configurations of training runs.
      overrides: Assignments `key=value` for these runs.
      num_layers: Layers of DiT and text encoder; None for all, on a CPU 2.
      num_frames: Frames of a video; None for the published number, on a CPU 5.
      height: Pixels; None for the published number, on a CPU 64.
      width: Likewise.
      repeat: Runs of each program.
      with_peer: Whether to measure diffusers too.
      status: Called with what is being measured.
      weights: Dtype of weights for sampling; None is that of matmuls.

    Raises:
      UserError: An argument is wrong, or the device has no matmul for the weights.
      ImportError: The peer is not installed.
    """
    require_matmuls(str(weights))
    if with_peer:
        require_peer()
    on_cpu = jax.default_backend() == "cpu"
    layers = num_layers or (CPU_LAYERS if on_cpu else DiTConfig().num_layers)
    size = (CPU_SIZE if on_cpu else VideoSize()).override(
        num_frames=num_frames, height=height, width=width
    )
    dtype = "float32" if on_cpu else "bfloat16"
    configs = {"dit": DiTConfig(num_layers=layers), "text_encoder": _text_encoder(layers, on_cpu)}
    theirs = []
    if with_peer:
        theirs = measure_peer(
            _comparable(adapters),
            dit=configs["dit"],
            vae=VAEConfig(),
            text_encoder=configs["text_encoder"],
            size=size,
            dtype=dtype,
            repeat=repeat,
            status=status,
        )
    device = jax.devices()[0]
    kernel = _attention(configs["dit"], size, dtype)
    bench = Bench(device.device_kind, peak_flops(device), matmul_flops(), layers, size, kernel)
    with published_checkpoint(configs) as folder:
        for name, decoder in itertools.product(adapters, decoders):
            adapter = None if name == "none" else name
            spec = SampleSpec(folder, adapter, size, dtype, weights, decoder)
            group = f"sample, {name}" + ", tiny decoder" * (decoder == "tiny")
            with jax.set_mesh(sharding.make_mesh()):
                _, programs = sampling_programs(spec)
                known = _known(bench, f"sample, {name}")
                _measure(bench, group, programs, repeat, status, known)
            _measure_pipeline(bench, group, spec, repeat, status)
    for file in train_configs:
        run = with_overrides(load_config(file, TrainConfig), [f"dtype={dtype}", *overrides])
        mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.context)
        with with_published_sizes(run, configs) as (sized, _), jax.set_mesh(mesh):
            programs = training_programs(sized, size)
            _measure(bench, Path(file).stem, programs, repeat, status, {})
    compared = compare(theirs, bench.measured, size, VAEConfig())
    return dataclasses.replace(bench, compared=compared)


def _comparable(adapters: Sequence[str]) -> set[str]:
    """The peer's work that has a counterpart among our programs.

    Maps are encoded with an adapter only; the peer's denoising step has none.
    """
    missing = set() if "none" in adapters else {"denoising step, no adapter"}
    if set(adapters) <= {"none"}:
        missing.add("encode video")
    return set(WORK) - missing if adapters else set()


def _text_encoder(layers: int, on_cpu: bool) -> TextEncoderConfig:
    full = TextEncoderConfig()
    if layers >= DiTConfig().num_layers:
        return full
    words = CPU_VOCABULARY if on_cpu else full.vocab_size
    return TextEncoderConfig(num_layers=min(layers, full.num_layers), vocab_size=words)


def _attention(dit: DiTConfig, size: VideoSize, dtype: str) -> str:
    """The implementation of self-attention in the DiT."""
    frames, height, width, _ = VAEConfig().latent_shape(*size.shape)
    tokens = frames * (height // dit.patch_size[0]) * (width // dit.patch_size[1])
    shape = (1, tokens, dit.num_heads, dit.dim // dit.num_heads)
    return choose_kernel(jax.ShapeDtypeStruct(shape, dtype))


def _known(bench: Bench, group: str) -> dict[str, float]:
    """Seconds by name of the programs that need not be measured again.

    Args:
      bench: The measurements.
      group: Beginning of the names of groups with the same adapter.
    """
    return {
        one.program.name: one.median
        for other, one in bench.measured
        if one.program.name not in ADAPTED or other.startswith(group)
    }


def _measure(
    bench: Bench,
    group: str,
    programs: list[PlannedProgram],
    repeat: int,
    status: Status,
    known: Mapping[str, float],
) -> None:
    """Adds a group; `known` are seconds of programs that were measured before."""
    total, fits = 0.0, True
    for program in programs:
        if program.name in known:
            total += program.runs * known[program.name]
            continue
        status(f"{group}: {program.name}")
        result = measure(program, repeat)
        if isinstance(result, OutOfMemory):
            status(f"{group}: {program.name} does not fit")
            bench.out_of_memory.append((group, result))
            fits = False
            continue
        status(f"{group}: {program.name} took {result.median:.4f} s")
        bench.measured.append((group, result))
        total += program.runs * result.median
    if fits:
        bench.totals[group] = total


def _measure_pipeline(
    bench: Bench, group: str, spec: SampleSpec, repeat: int, status: Status
) -> None:
    """Adds runs of the whole pipeline, if all programs fit and all models fit together."""
    if group not in bench.totals:
        return
    status(f"{group}: whole pipeline")
    try:
        run = measure_pipeline(spec, repeat)
    except jax.errors.JaxRuntimeError as error:
        if not is_resource_exhausted(error):
            raise
        status(f"{group}: the models do not fit into memory together")
        return
    status(f"{group}: a video by the pipeline took {run.median:.4f} s")
    bench.pipeline[group] = run
