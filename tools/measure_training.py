"""Full-size training without weights: memory and FLOPs of the stages, and speed of data loading.

PYTHONPATH=.:tests python tools/measure_training.py
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

from flashmotion_jax.data.batches import latent_batches
from flashmotion_jax.data.latent_cache import open_cache
from flashmotion_jax.runtime.sharding import make_mesh
from flashmotion_jax.training.dry_run import describe
from helpers.full_size_world import DIT, load_run, write_world

RUNS = ["stage1_mask.py", "stage1_mask.py:controlnet", "stage2.py", "stage3.py"]
ROWS = 24


def measure_run(world, name):
    """Prints the `--dry-run` of a configuration on one device with one video per step."""
    config = load_run(f"configs/{name}", world, "mesh.fsdp=1", "batch_size=1")
    print(f"== {name}")
    for line in describe(config):
        if any(word in line for word in ("memory per device", "update of", "learning rate")):
            print(line, flush=True)


def measure_data(world, num_threads):
    """Prints the seconds to read a batch of one video."""
    cache = open_cache(world / "cache")
    with jax.set_mesh(make_mesh()):
        batches = latent_batches(
            cache,
            map_kind="box",
            batch_size=1,
            seed=0,
            text_len=DIT.text_len,
            mesh=make_mesh(),
            num_threads=num_threads,
        )
        next(batches)
        start = time.perf_counter()
        for _ in range(ROWS):
            batch = jax.block_until_ready(next(batches))
        seconds = (time.perf_counter() - start) / ROWS
        batches.close()
    size = sum(array.nbytes for array in batch) / 1e6
    print(
        f"{num_threads} threads: {seconds:.3f} s per video of 121 x 704 x 1280, {size:.0f} MB of it"
    )


def main():
    with tempfile.TemporaryDirectory() as folder:
        world = write_world(Path(folder) / "world", latent_frames=31, num_rows=ROWS)
        for num_threads in (1, 4):
            measure_data(world, num_threads)
        for name in RUNS:
            measure_run(world, name)


if __name__ == "__main__":
    main()
