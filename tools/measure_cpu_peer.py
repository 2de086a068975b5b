"""The VAE's decoder and the DiT's gradient on a CPU, beside diffusers: pairs in one process.

    JAX_PLATFORMS=cpu PYTHONPATH=. python tools/measure_cpu_peer.py [decode] [gradient] [--pairs N]

Ours and theirs take turns, so that other load hits both alike, and times are CPU seconds of the
process. PyTorch gets one thread, for several would count the time that they wait for each other.
"decode, before" is ours without products of windows (`models.convolution.FEW_PIXELS`). The decoder
has full width (5 frames of 64 x 64), the DiT is that of the included model (8 clips of 5 x 8 x 8
latents). Weights are random.
"""

from __future__ import annotations

import argparse
import json
import operator
import statistics
import time

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from flashmotion_jax.config import DiTConfig, VAEConfig
from flashmotion_jax.converters import dit as dit_names
from flashmotion_jax.converters import vae as vae_names
from flashmotion_jax.inference.chunks import decode_chunk
from flashmotion_jax.models import convolution
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.jit import program

DIT = DiTConfig(
    dim=160,
    num_heads=4,
    ffn_dim=448,
    num_layers=6,
    in_channels=32,
    out_channels=32,
    patch_size=(1, 1),
    text_dim=64,
    text_len=72,
    freq_dim=64,
)
CLIPS, LATENTS = 8, (5, 8, 8)


def theirs(kind, config):
    return kind.from_config(json.loads(json.dumps(config)))


def decode():
    """Two latent frames of 4 x 4, decoded to five frames of 64 x 64."""
    config = VAEConfig()
    vae = nnx.eval_shape(lambda: VAE(config, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    peer = theirs(diffusers.AutoencoderKLWan, vae_names.write_config(config)).eval()
    peer.encoder = None

    def draw(path, like):
        # The encoder, which is not used, takes no memory.
        shape = () if "encoder" in jax.tree_util.keystr(path) else like.shape
        return jnp.asarray(rng.standard_normal(shape, np.float32) * np.float32(0.02))

    vae = jax.tree_util.tree_map_with_path(draw, vae)
    latents = jnp.asarray(rng.standard_normal((1, 2, 4, 4, config.latent_channels), np.float32))

    def ours(few_pixels):
        # A function of its own: JAX shares traces between programs of one function.
        def chunk(vae, latents, past):
            return decode_chunk.function(vae, latents, past)

        run = program(chunk, donate_argnames=("past",))

        def decode():
            convolution.FEW_PIXELS, past = few_pixels, None
            for t in range(2):
                frames, past = run(vae, latents[:, t : t + 1], past)
            jax.block_until_ready(frames)

        return decode

    theirs_latents = torch.tensor(np.moveaxis(np.asarray(latents), -1, 1).copy())

    def peers():
        with torch.inference_mode():
            peer.decode(theirs_latents)

    runs = ours(convolution.FEW_PIXELS), peers, ours(0)
    return dict(zip(("decode", "diffusers", "decode, before"), runs, strict=True))


def gradient():
    """Mean square of the velocity: forward and backward."""
    dit = DiT(DIT, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    shape = (CLIPS, *LATENTS, DIT.in_channels)
    latents = jnp.asarray(rng.standard_normal(shape, np.float32))
    text = jnp.asarray(rng.standard_normal((CLIPS, DIT.text_len, DIT.text_dim), np.float32))
    timesteps = jnp.full(shape[:2], 500.0)
    run = program(jax.grad(lambda dit, *inputs: jnp.mean(dit(*inputs) ** 2)))
    peer = theirs(diffusers.WanTransformer3DModel, dit_names.write_config(DIT, "diffusers"))
    inputs = torch.tensor(np.moveaxis(np.asarray(latents), -1, 1).copy())
    steps = torch.full((CLIPS, int(np.prod(LATENTS))), 500.0)
    context = torch.tensor(np.asarray(text))

    def peers():
        peer.zero_grad()
        (peer(inputs, steps, context, return_dict=False)[0] ** 2).mean().backward()

    def ours():
        jax.block_until_ready(run(dit, latents, timesteps, text))

    return {"gradient": ours, "diffusers": peers}


WORK = {"decode": decode, "gradient": gradient}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", nargs="*", choices=[*WORK, []], help="default: all")
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.work or WORK:
        runs = WORK[name]()
        times = {one: [] for one in runs}
        for number in range(args.pairs + 1):
            for one, run in runs.items():
                start = time.process_time()
                run()
                if number:  # the first compiles
                    times[one].append(time.process_time() - start)
        for one, seconds in times.items():
            ratios = sorted(map(operator.truediv, seconds, times["diffusers"]))
            print(
                f"{one}: {statistics.median(seconds):.3f} CPU s, {statistics.median(ratios):.2f} "
                f"times diffusers [{ratios[0]:.2f}, {ratios[-1]:.2f}]",
                flush=True,
            )


if __name__ == "__main__":
    main()
