"""The same work by diffusers and transformers, in PyTorch on the same device.

Models of the same sizes with random weights; attention is PyTorch's SDPA, as diffusers chooses.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from flashmotion_jax.config import DiTConfig, TextEncoderConfig, VAEConfig
from flashmotion_jax.perf.measure import Measured, run_times
from flashmotion_jax.perf.sampling import ADAPTED
from flashmotion_jax.perf.sizes import VideoSize

#: What is compared -> the programs of ours that do it together.
OURS = {
    "text": ("text",),
    "encoding an image": ("encoding the image",),
    "encoding a video": ("encoding the first map", "encoding {factor} more maps"),
    "decoding": ("decoding the first frame", "decoding 1 more"),
    "a step, no adapter": ("a step",),
}


class Compared(NamedTuple):
    """One piece of work, done by both.

    Attributes:
      name: of the work, as in `OURS`.
      ours: seconds of ours.
      theirs: seconds of the peer.
      how: the peer ran, "eager" or "torch.compile".
      note: why it was not compiled, "" otherwise.
      memory: most bytes that PyTorch held on a GPU; 0 on a CPU.
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


class Theirs(NamedTuple):
    """What the peer took for a piece of work; see `Compared`."""

    name: str
    seconds: float
    how: str
    note: str
    memory: int


class Work(NamedTuple):
    """A model of the peer and what it shall do: `run(model)`; `compiles` if that is worth a try."""

    name: str
    build: Callable[[], Any]
    run: Callable[[Any], Any]
    compiles: bool = False


def require_peer() -> None:
    """Raises if PyTorch or diffusers is missing.

    Raises:
      ImportError: one of them is.
    """
    try:
        import diffusers  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError(f"--peer diffusers: {error}; pip install torch diffusers") from error


def versions() -> dict[str, str]:
    """Of the peer's packages."""
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
    progress: Callable[[str], None],
) -> list[Theirs]:
    """Runs the peer's models one after the other.

    Before ours: PyTorch gives a GPU's memory back, JAX keeps what it once had.

    Args:
      names: of the work, see `OURS`.
      dit: sizes of the DiT.
      vae: sizes of the VAE.
      text_encoder: sizes of the text encoder.
      size: of the video.
      dtype: of weights and activations.
      repeat: runs that count, after one that does not.
      progress: hears what is being measured.
    """
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(os.cpu_count() or 1)
    results = []
    with torch.inference_mode():
        for work in _works(dit, vae, text_encoder, size, getattr(torch, dtype)):
            if work.name in names:
                progress(f"diffusers: {work.name}")
                results.append(_measure(work, repeat))
                progress(f"diffusers: {work.name} took {results[-1].seconds:.4f} s")
    _free()
    return results


def compare(
    theirs: list[Theirs], measured: list[tuple[str, Measured]], size: VideoSize, vae: VAEConfig
) -> list[Compared]:
    """Puts ours beside theirs.

    Args:
      theirs: from `measure_peer`.
      measured: our programs, by group; those of sampling without an adapter are compared.
      size: of the video.
      vae: sizes of the VAE.

    Returns:
      What both did. Work of which ours has not been measured is left out.
    """
    ours = _seconds_of_programs(measured, size, vae)
    return [Compared(one.name, ours[one.name], *one[1:]) for one in theirs if one.name in ours]


def _seconds_of_programs(
    measured: list[tuple[str, Measured]], size: VideoSize, vae: VAEConfig
) -> dict[str, float]:
    """Work to our seconds: a whole video, however many programs that are."""
    factor, chunks = vae.temporal_factor, vae.latent_shape(*size)[0] - 1
    known = {
        one.program.name: one.median
        for group, one in measured
        if group == "sample, none" or one.program.name not in ADAPTED
    }
    found = {}
    for work, names in OURS.items():
        first, *more = (name.format(factor=factor) for name in names)
        if {first, *more} <= known.keys():
            found[work] = known[first] + chunks * sum(known[name] for name in more)
    return found


def _measure(work: Work, repeat: int) -> Theirs:
    import torch

    on_gpu = torch.cuda.is_available()
    _free()  # the model before this one
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    model = work.build()
    seconds, how, note = _time(lambda: work.run(model), repeat), "eager", ""
    if work.compiles:
        try:
            compiled = torch.compile(model)
            quicker = _time(lambda: work.run(compiled), repeat)
        except Exception as error:  # of whatever kind: its compiler is not what is measured
            note = f"torch.compile failed: {str(error).splitlines()[0][:120]}"
        else:
            if quicker < seconds:
                seconds, how = quicker, "torch.compile"
    memory = torch.cuda.max_memory_allocated() if on_gpu else 0
    return Theirs(work.name, seconds, how, note, memory)


def _free() -> None:
    """Lets go of models and programs that are no longer used."""
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
) -> Iterator[Work]:
    import diffusers
    import torch
    import transformers

    from converters import dit as dit_names
    from converters import text_encoder as text_names
    from converters import vae as vae_names

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

    frames, height, width = vae.latent_shape(*size)[:3]
    video = normal(1, 3, *size)
    latents = normal(1, dit.in_channels, frames, height, width)
    tokens = frames * (height // dit.patch_size[0]) * (width // dit.patch_size[1])
    timesteps = torch.full((1, tokens), 500.0, device=device)  # one for each token, as Wan2.2 has
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
    yield Work("text", make_text, lambda model: model(ids, attention_mask=torch.ones_like(ids)))
    yield Work("encoding an image", make_vae, lambda model: model.encode(video[:, :, :1]))
    yield Work("encoding a video", make_vae, lambda model: model.encode(video))
    yield Work("decoding", make_vae, lambda model: model.decode(latents))
    # Last, for compiling it may take minutes.
    yield Work("a step, no adapter", make_dit, lambda m: m(latents, timesteps, text), compiles=True)
