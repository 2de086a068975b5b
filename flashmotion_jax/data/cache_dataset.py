"""Encoding of videos with their maps into a latent cache (`flashmotion cache`).

    video, masks, boxes --VAE--> latents ---+
    caption --UMT5--> text ---------------- one record of a shard

Device memory holds the weights of the text encoder and the VAE throughout, and the VAE's
activations for one video. Host memory holds the embeddings of one shard and four decoded videos,
because the next three are read while one is encoded (0.98 GB each for 121 frames of 704 x 1280,
including maps).
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import CachedMapKind, Grid
from flashmotion_jax.data.cache_writer import (
    finish_cache,
    has_shard,
    require_same_settings,
    write_shard,
    write_text,
)
from flashmotion_jax.data.examples import DataKind, DrawnSprites, open_examples
from flashmotion_jax.data.latent_cache import CacheSettings, LatentCache, open_cache
from flashmotion_jax.data.magicdata import Example, MagicData, Resize
from flashmotion_jax.data.records import DTYPES, Record, map_name
from flashmotion_jax.media.images import to_float
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.runtime.progress import Progress
from flashmotion_jax.text.prompts import PromptEncoder, Tokenize
from flashmotion_jax.trajectory.formats.magicdata_csv import RowError

#: Number of videos that are decoded in parallel, ahead of the VAE.
DECODING_THREADS = 3

Embed = Callable[[str], np.ndarray]


def cache_dataset(
    data_root: str | Path,
    csv: str | Path,
    output: str | Path,
    model: str | Path,
    *,
    data: DataKind = "magicdata",
    num_clips: int = 100_000,
    num_frames: int = 121,
    height: int = 704,
    width: int = 1280,
    resize: Resize = "stretch",
    videos_per_shard: int = 32,
    dtype: str = "float16",
    map_kinds: Sequence[CachedMapKind] = ("mask", "box"),
    single_frames: bool = False,
    point_sigma: float = 0.02,
    process_index: int = 0,
    process_count: int = 1,
    progress: Progress | None = None,
) -> LatentCache | None:
    """Encodes videos with their maps into a latent cache, resuming an interrupted run.

    Args:
      data_root: Folder with videos/, masks/ and boxs/.
      csv: File name in `data_root`, or a path.
      output: Folder of the cache. Existing shards must have been written with the same settings.
      model: Checkpoint with the VAE and the text encoder.
      data: "magicdata" reads the folder, "sprites" draws clips instead.
      num_clips: Number of clips of "sprites".
      num_frames: Frames per video, 4 n + 1; shorter videos are skipped.
      height: Height of the videos, in pixels.
      width: Width of the videos, in pixels.
      resize: "stretch" or "crop".
      videos_per_shard: Number of CSV rows per shard.
      dtype: Dtype of the stored arrays, "float16" or "float32".
      map_kinds: Trajectory maps to encode.
      single_frames: Whether the map of each latent frame's last frame is also encoded alone.
      point_sigma: Standard deviation of "points", as a fraction of the shorter side.
      process_index: This process writes shards `process_index`, `process_index + process_count`,
        ...
      process_count: Number of processes that share the work, on one machine or several.
      progress: Called with "cache", the number of finished rows, and the number of rows of this
        run.

    Returns:
      The cache, or None if shards of other processes are still missing.

    Raises:
      UserError: An argument is invalid, the data or the checkpoint cannot be used, or latents
        exceed the range of `dtype`.
    """
    _check_arguments(videos_per_shard, dtype, process_index, process_count)
    folder = Path(output)
    models = components.open_checkpoint(model)
    Grid.of(models.config.dit, models.config.vae).check(num_frames, height, width)
    sigma = point_sigma if "points" in map_kinds else None
    source = open_examples(
        data,
        data_root=str(data_root),
        csv=str(csv),
        num_clips=num_clips,
        num_frames=num_frames,
        height=height,
        width=width,
        resize=resize,
        map_colors=models.config.sampling.map_colors,
        point_sigma=sigma,
    )
    kinds = [map_name(kind) for kind in map_kinds]
    kinds += [map_name(kind, True) for kind in map_kinds if single_frames]
    settings = CacheSettings(
        csv_sha256=source.fingerprint,
        num_rows=len(source) + len(source.rejected),
        videos_per_shard=videos_per_shard,
        num_frames=num_frames,
        height=height,
        width=width,
        resize=resize,
        latent_shape=models.config.vae.latent_shape(num_frames, height, width),
        text_dim=models.config.text_encoder.dim,
        text_len=models.config.dit.text_len,
        dtype=dtype,
        vae_key=components.read_component(model, "vae").key,
        text_encoder_key=models.text_encoder_key,
        text_dtype="float32" if jax.default_backend() == "cpu" else "bfloat16",
        negative_prompt=models.config.sampling.negative_prompt,
        maps=tuple(kinds),
        point_sigma=sigma,
    )
    require_same_settings(folder, settings)
    if (folder / "cache.json").is_file():
        return open_cache(folder)
    missing = [n for n in range(settings.num_shards) if not has_shard(folder, n, settings)]
    own = [number for number in missing if number % process_count == process_index]
    if own or not (folder / "text.npz").is_file():
        _write_shards(folder, own, settings, source, models, progress)
    return finish_cache(folder, settings)


def _write_shards(
    folder: Path,
    numbers: list[int],
    settings: CacheSettings,
    source: MagicData | DrawnSprites,
    models: components.Checkpoint,
    progress: Progress | None,
) -> None:
    """Writes the given shards, and the embeddings of the empty and the negative prompt."""
    known: dict[int, int | RowError] = {n: i for i, n in enumerate(source.row_numbers)}
    known |= {error.row: error for error in source.rejected}
    size = settings.videos_per_shard
    shards = {n: [known[row] for row in range(len(known))[n * size :][:size]] for n in numbers}
    todo = [item for items in shards.values() for item in items]
    report = progress or (lambda *_: None)
    with jax.set_mesh(sharding.make_mesh()):
        load = functools.partial(components.load_component, models.path, dtype=settings.text_dtype)
        text_encoder, vae = load("text_encoder"), load("vae")

        def new_embed() -> Embed:
            # A PromptEncoder caches its embeddings: one per shard limits them to 0.3 GB.
            prompts = PromptEncoder(
                models.tokenizer, lambda: contextlib.nullcontext(text_encoder), settings.text_len
            )
            return functools.partial(_embed, prompts, models.tokenizer, settings.text_len)

        embed = new_embed()
        write_text(folder, embed(""), embed(settings.negative_prompt))
        examples = _read_ahead(source, todo)
        done = count()

        def encode(row: Example | RowError) -> Record | RowError:
            report("cache", next(done), len(todo))
            return _encode_row(vae, embed, row, settings.maps)

        with contextlib.closing(examples):
            for number, items in shards.items():
                embed = new_embed()
                write_shard(folder, number, settings, map(encode, islice(examples, len(items))))
        report("cache", len(todo), len(todo))


def _read_ahead(
    source: MagicData | DrawnSprites, items: Iterable[int | RowError]
) -> Generator[Example | RowError, None, None]:
    """Yields examples in order, while threads decode the next ones."""

    def read(item: int | RowError) -> Example | RowError:
        if isinstance(item, RowError):
            return item
        try:
            return source[item]
        except RowError as error:
            return error

    pool = ThreadPoolExecutor(DECODING_THREADS)
    ahead: deque[Future[Example | RowError]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(read, item))
            if len(ahead) > DECODING_THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _encode_row(
    vae: VAE, embed: Embed, row: Example | RowError, kinds: Iterable[str]
) -> Record | RowError:
    if isinstance(row, RowError):
        return row
    drawn = {"mask": row.masks, "box": row.boxes, "points": row.points}
    encodings = {
        map_name(kind, alone): (encode, maps)
        for kind, maps in drawn.items()
        for alone, encode in ((False, _encode), (True, _encode_frames))
    }
    maps = {}
    for kind in kinds:
        encode, frames = encodings[kind]
        maps[kind] = np.asarray(encode(vae, jnp.asarray(frames)))
    latents = np.asarray(_encode(vae, jnp.asarray(row.video)))
    return Record(row.id, row.caption, latents, maps, embed(row.caption))


@program
def _encode(vae: VAE, frames: jax.Array) -> jax.Array:
    # Pixels are transferred as bytes and scaled on the device: in float32 a video has 1.3 GB.
    return vae.encode(to_float(frames[None]))[0]


@program
def _encode_frames(vae: VAE, frames: jax.Array) -> jax.Array:
    """Encodes the last frame of each latent frame alone, uint8 `[F, H, W, 3]`."""

    def encode(frame: jax.Array) -> jax.Array:
        return vae.encode(to_float(frame[None, None]))[0, 0]

    # One after another: a video's frames are encoded in chunks, too.
    return jax.lax.map(encode, frames[:: vae.config.temporal_factor])


def _embed(prompts: PromptEncoder, tokenizer: Tokenize, text_len: int, caption: str) -> np.ndarray:
    """Embeds a caption, without padding, float32 `[S, D]`."""
    num_tokens = int(tokenizer([caption], text_len)[1].sum())
    return np.asarray(prompts([caption]))[0, :num_tokens]


def _check_arguments(
    videos_per_shard: int, dtype: str, process_index: int, process_count: int
) -> None:
    if videos_per_shard < 1:
        raise UserError(f"videos_per_shard={videos_per_shard}; expected at least 1")
    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r}; expected one of {', '.join(DTYPES)}")
    if not 0 <= process_index < process_count:
        raise UserError(
            f"process_index={process_index} of process_count={process_count}; expected 0 to "
            f"{process_count - 1}"
        )
