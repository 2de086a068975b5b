"""Measures the same work in diffusers and transformers, with PyTorch on the same device.

Models have the same sizes and random weights; attention is PyTorch's SDPA, diffusers' default.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flashmotion_jax.config import DiTConfig, TextEncoderConfig, VAEConfig
from flashmotion_jax.perf.measure import Measured, run_times
from flashmotion_jax.perf.sampling import ADAPTED
from flashmotion_jax.perf.sizes import VideoSize
from flashmotion_jax.runtime.progress import Status

#: What is compared, and our programs that do it together: one run of the first, and one run of the
#: second for each later chunk of the video.
WORK = {
    "text": ("text",),
    "encode image": ("encode image",),
    "encode video": ("encode first map", "encode next maps"),
    "decode": ("decode first frame", "decode next frames"),
    "denoising step, no adapter": ("denoising step",),
}


@dataclass(frozen=True)
class Compared:
    """One piece of work, done by both.

    Attributes:
      name: A key of `WORK`.
      ours: Our seconds.
      theirs: Seconds of the peer.
      how: How the peer ran, "eager" or "torch.compile".
      note: Why it was not compiled; "" otherwise.
      memory: Peak bytes that PyTorch allocated on a GPU; 0 on a CPU.
    """

    name: str
    ours: float
    theirs: float
    how: str
    note: str
    memory: int

    @property
    def ratio(self) -> float:
        """How many times as long the peer took."""
        return self.theirs / self.ours


@dataclass(frozen=True)
class PeerResult:
    """What the peer took for a piece of work; see `Compared`."""

    name: str
    seconds: float
    how: str
    note: str
    memory: int


@dataclass(frozen=True)
class PeerWork:
    """A piece of the peer's work.

    Attributes:
      name: A key of `WORK`.
      build: Builds a model.
      run: Runs it.
      compiles: Whether to try `torch.compile`.
    """

    name: str
    build: Callable[[], Any]
    run: Callable[[Any], Any]
    compiles: bool = False


def require_peer() -> None:
    """Checks that PyTorch and diffusers are installed.

    Raises:
      ImportError: One of them is missing.
    """
    try:
        import diffusers  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError(f"--peer diffusers: {error}; pip install torch diffusers") from error


def versions() -> dict[str, str]:
    """Versions of the peer's packages, by name."""
    import diffusers
    import torch
    import transformers

    packages = (torch, diffusers, transformers)
    return {package.__name__: str(package.__version__) for package in packages}


def measure_peer(
    names: Collection[str],
    *,
    dit: DiTConfig,
    vae: VAEConfig,
    text_encoder: TextEncoderConfig,
    size: VideoSize,
    dtype: str,
    repeat: int,
    status: Status,
) -> list[PeerResult]:
    """Runs the peer's models one after the other.

    Call this before running ours: PyTorch returns a GPU's memory, JAX keeps what it has allocated.

    Args:
      names: Work to measure, keys of `WORK`.
      dit: Sizes of the DiT.
      vae: Sizes of the VAE.
      text_encoder: Sizes of the text encoder.
      size: Size of the video.
      dtype: Precision of weights and activations.
      repeat: Runs to time, after one warm-up run.
      status: Called with what is being measured.
    """
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(os.cpu_count() or 1)
    results = []
    with torch.inference_mode():
        for work in _works(dit, vae, text_encoder, size, getattr(torch, dtype)):
            if work.name in names:
                status(f"diffusers: {work.name}")
                results.append(_measure(work, repeat))
                status(f"diffusers: {work.name} took {results[-1].seconds:.4f} s")
    _free()
    return results


def compare(
    theirs: list[PeerResult], measured: list[tuple[str, Measured]], size: VideoSize, vae: VAEConfig
) -> list[Compared]:
    """Compares our times with the peer's.

    Args:
      theirs: Results of `measure_peer`.
      measured: Our programs with their groups; sampling without an adapter is compared.
      size: Size of the video.
      vae: Sizes of the VAE.

    Returns:
      Work that both did; work whose programs were not measured on our side is left out.
    """
    ours = _our_seconds(measured, size, vae)
    return [
        Compared(one.name, ours[one.name], one.seconds, one.how, one.note, one.memory)
        for one in theirs
        if one.name in ours
    ]


def _our_seconds(
    measured: list[tuple[str, Measured]], size: VideoSize, vae: VAEConfig
) -> dict[str, float]:
    """Our seconds for each piece of work, over all chunks of a video."""
    chunks = vae.latent_shape(*size.shape)[0] - 1
    known = {
        one.program.name: one.median
        for group, one in measured
        if group == "sample, none" or one.program.name not in ADAPTED
    }
    found = {}
    for work, (first, *more) in WORK.items():
        if {first, *more} <= known.keys():
            found[work] = known[first] + chunks * sum(known[name] for name in more)
    return found


def _measure(work: PeerWork, repeat: int) -> PeerResult:
    import torch

    on_gpu = torch.cuda.is_available()
    _free()  # the previous model
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    model = work.build()
    seconds, how, note = _time(lambda: work.run(model), repeat), "eager", ""
    if work.compiles:
        try:
            compiled = torch.compile(model)
            quicker = _time(lambda: work.run(compiled), repeat)
        except Exception as error:  # of any type: the peer's compiler is not what is measured
            note = f"torch.compile failed: {str(error).splitlines()[0][:120]}"
        else:
            if quicker < seconds:
                seconds, how = quicker, "torch.compile"
    memory = torch.cuda.max_memory_allocated() if on_gpu else 0
    return PeerResult(work.name, seconds, how, note, memory)


def _free() -> None:
    """Free models and programs that are no longer used."""
    import torch

    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _time(run: Callable[[], Any], repeat: int) -> float:
    import torch

    def timed() -> float:
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return statistics.median(run_times(timed, repeat))


def _works(
    dit: DiTConfig, vae: VAEConfig, text_encoder: TextEncoderConfig, size: VideoSize, dtype: Any
) -> Iterator[PeerWork]:
    import diffusers
    import torch
    import transformers

    from flashmotion_jax.converters import dit as dit_names
    from flashmotion_jax.converters import text_encoder as text_names
    from flashmotion_jax.converters import vae as vae_names

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def build(kind: Any, config: Mapping[str, Any]) -> Callable[[], Any]:
        def make() -> Any:
            default = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            try:
                with torch.device(device):
                    return kind(config).eval()
            finally:
                torch.set_default_dtype(default)

        return make

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, device=device, dtype=dtype)

    def from_config(kind: Any) -> Any:
        return lambda config: kind.from_config(json.loads(json.dumps(config)))

    frames, height, width = vae.latent_shape(*size.shape)[:3]
    video = normal(1, 3, *size.shape)
    latents = normal(1, dit.in_channels, frames, height, width)
    tokens = frames * (height // dit.patch_size[0]) * (width // dit.patch_size[1])
    timesteps = torch.full((1, tokens), 500.0, device=device)  # one for each token, as in Wan2.2
    text = normal(1, dit.text_len, dit.text_dim)
    ids = torch.ones(1, dit.text_len, device=device, dtype=torch.long)

    make_text = build(
        lambda config: transformers.UMT5EncoderModel(transformers.UMT5Config(**config)),
        text_names.write_config(text_encoder),
    )
    make_vae = build(from_config(diffusers.AutoencoderKLWan), vae_names.write_config(vae))
    make_dit = build(
        from_config(diffusers.WanTransformer3DModel), dit_names.write_config(dit, "diffusers")
    )
    mask = torch.ones_like(ids)
    yield PeerWork("text", make_text, lambda model: model(ids, attention_mask=mask))
    yield PeerWork("encode image", make_vae, lambda model: model.encode(video[:, :, :1]))
    yield PeerWork("encode video", make_vae, lambda model: model.encode(video))
    yield PeerWork("decode", make_vae, lambda model: model.decode(latents))
    # Last, because compiling it may take minutes.
    yield PeerWork(
        "denoising step, no adapter",
        make_dit,
        lambda model: model(latents, timesteps, text),
        compiles=True,
    )
