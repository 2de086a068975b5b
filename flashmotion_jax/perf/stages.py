"""What is measured: sampling with each adapter, and training turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from flashmotion_jax.config import (
    DiTConfig,
    TextEncoderConfig,
    TrainConfig,
    VAEConfig,
    load_config,
    with_overrides,
)
from flashmotion_jax.perf.end_to_end import WholeRun, measure_pipeline
from flashmotion_jax.perf.measure import (
    Measured,
    TooLarge,
    matmul_flops,
    measure,
)
from flashmotion_jax.perf.peer import OURS, Compared, compare, measure_peer, require_peer
from flashmotion_jax.perf.programs import PlannedProgram, training_programs
from flashmotion_jax.perf.sampling import ADAPTED, SampleSizes, sampling_programs
from flashmotion_jax.perf.sizes import VideoSize, published, with_sizes
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.devices import peak_flops
from flashmotion_jax.runtime.errors import is_resource_exhausted

#: On a CPU: the same widths, but what ends in minutes.
CPU_LAYERS, CPU_SIZE, CPU_VOCABULARY = 2, VideoSize(5, 64, 64), 1024

Progress = Callable[[str], None]


class Bench(NamedTuple):
    """All measurements.

    Attributes:
      device: the kind of the devices.
      peak: operations a second that the maker says, None if not known.
      matmul: operations a second of a large matmul, in this run.
      layers: of the DiT.
      size: of the videos.
      measured: what was, by group.
      refused: programs that did not fit, by group.
      totals: seconds of a video or of a step, by group, of those that fit as a whole.
      whole: videos by the pipeline, by group, of those that fit.
      compared: with the peer, if that was asked for.
    """

    device: str
    peak: float | None
    matmul: float
    layers: int
    size: VideoSize
    measured: list[tuple[str, Measured]]
    refused: list[tuple[str, TooLarge]]
    totals: dict[str, float]
    whole: dict[str, WholeRun]
    compared: list[Compared]


def run_bench(
    *,
    adapters: Sequence[str],
    trained: Sequence[str],
    overrides: Sequence[str],
    layers: int | None,
    height: int | None,
    width: int | None,
    num_frames: int | None,
    repeat: int,
    with_peer: bool,
    progress: Progress,
) -> Bench:
    """Measures one group of programs after the other.

    Args:
      adapters: of sampling, "none" among them.
      trained: files of training runs.
      overrides: assignments for these runs.
      layers: of DiT and text encoder; None takes all, on a CPU 2.
      height: in pixels; None takes the published one, on a CPU a smaller one. Likewise:
      width: in pixels.
      num_frames: of a video.
      repeat: runs of each program.
      with_peer: measure diffusers too.
      progress: hears what is being measured.

    Raises:
      UserError: an argument is wrong.
      ImportError: the peer is missing.
    """
    if with_peer:
        require_peer()
    on_cpu = jax.default_backend() == "cpu"
    layers = layers or (CPU_LAYERS if on_cpu else DiTConfig().num_layers)
    video = CPU_SIZE if on_cpu else VideoSize()
    video = video.override(height=height, width=width, num_frames=num_frames)
    dtype = "float32" if on_cpu else "bfloat16"
    sizes = {"dit": DiTConfig(num_layers=layers), "text_encoder": _text_encoder(layers, on_cpu)}
    theirs = []
    if with_peer:
        theirs = measure_peer(
            _comparable(adapters),
            dit=sizes["dit"],
            vae=VAEConfig(),
            text_encoder=sizes["text_encoder"],
            size=video,
            dtype=dtype,
            repeat=repeat,
            progress=progress,
        )
    bench = Bench(
        device=jax.devices()[0].device_kind,
        peak=peak_flops(jax.devices()[0]),
        matmul=matmul_flops(),
        layers=layers,
        size=video,
        measured=[],
        refused=[],
        totals={},
        whole={},
        compared=[],
    )
    with published(sizes) as folder:
        for name in adapters:
            with jax.set_mesh(sharding.make_mesh()):
                adapter = None if name == "none" else name
                asked = SampleSizes(folder, adapter, video, dtype)
                _, programs = sampling_programs(asked)
                _measure(bench, f"sample, {name}", programs, repeat, progress)
            _measure_whole(bench, f"sample, {name}", asked, repeat, progress)
        for file in trained:
            run = load_config(file, TrainConfig)
            run = with_overrides(run, [f"dtype={dtype}", *overrides])
            axes = run.mesh.data, run.mesh.fsdp, run.mesh.context
            with with_sizes(run, sizes) as (sized, _), jax.set_mesh(sharding.make_mesh(*axes)):
                programs = training_programs(sized, video)
                _measure(bench, Path(file).stem, programs, repeat, progress)
    return bench._replace(compared=compare(theirs, bench.measured, video, VAEConfig()))


def _comparable(adapters: Sequence[str]) -> set[str]:
    """Work of the peer that ours will be measured of: maps need an adapter, the DiT's step none."""
    missing = set() if "none" in adapters else {"a step, no adapter"}
    if set(adapters) <= {"none"}:
        missing.add("encoding a video")
    return set(OURS) - missing if adapters else set()


def _text_encoder(layers: int, on_cpu: bool) -> TextEncoderConfig:
    full = TextEncoderConfig()
    if layers >= DiTConfig().num_layers:
        return full
    words = CPU_VOCABULARY if on_cpu else full.vocab_size
    return TextEncoderConfig(num_layers=min(layers, full.num_layers), vocab_size=words)


def _measure(
    bench: Bench,
    group: str,
    programs: list[PlannedProgram],
    repeat: int,
    progress: Progress,
) -> None:
    """Adds a group; what has been measured of another adapter is not run again."""
    total, fits = 0.0, True
    known = {
        one.program.name: one.median for _, one in bench.measured if one.program.name not in ADAPTED
    }
    for program in programs:
        if program.name in known:
            total += program.runs * known[program.name]
            continue
        progress(f"{group}: {program.name}")
        result = measure(program, repeat)
        if isinstance(result, TooLarge):
            progress(f"{group}: {program.name} does not fit")
            bench.refused.append((group, result))
            fits = False
            continue
        progress(f"{group}: {program.name} took {result.median:.4f} s")
        bench.measured.append((group, result))
        total += program.runs * result.median
    if fits:
        bench.totals[group] = total


def _measure_whole(
    bench: Bench, group: str, sizes: SampleSizes, repeat: int, progress: Progress
) -> None:
    """Adds videos by the pipeline, if each of its programs fits and all models do."""
    if group not in bench.totals:
        return
    progress(f"{group}: whole videos")
    try:
        whole = measure_pipeline(sizes, repeat)
    except jax.errors.JaxRuntimeError as error:
        if not is_resource_exhausted(error):
            raise
        progress(f"{group}: all models at a time do not fit")
        return
    progress(f"{group}: a whole video took {whole.median:.4f} s")
    bench.whole[group] = whole
