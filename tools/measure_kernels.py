"""Time of the kernels that take most of a video's time, on an accelerator.

pip install -e '.[tokamax]'
PYTHONPATH=. python tools/measure_kernels.py

Matmuls and attention of a DiT block, and the autoencoder's convolutions in three forms, at the
shapes of 121 frames of 704 x 1280. They limit what a program can reach.
"""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp

from flashmotion_jax.models.attention import attention
from flashmotion_jax.models.tokamax_attention import prepare_tokamax, tokamax_attention

RUNS = 10
TOKENS, WIDTH, HEADS, HIDDEN, TEXT = 27_280, 3072, 24, 14_336, 512
#: Tokens padded to blocks of 128, with which cuDNN is faster.
WHOLE_BLOCKS = 27_392
#: Frames, height, width and channels of the levels of the decoder, and of the encoder in float32.
LEVELS = ((1, 44, 80, 1024), (2, 88, 160, 1024), (4, 176, 320, 512), (4, 352, 640, 256))
ENCODER_LEVELS = ((4, 176, 320, 320), (4, 352, 640, 160))


def seconds(function, *args):
    """Seconds per run, over many consecutive runs."""
    compiled = jax.jit(function)
    compiled(*args).block_until_ready()
    start = time.perf_counter()
    for _ in range(RUNS):
        out = compiled(*args)
    out.block_until_ready()
    return (time.perf_counter() - start) / RUNS


def normal(*shape, dtype=jnp.bfloat16):
    return jax.random.normal(jax.random.key(len(shape)), shape, dtype)


def report(name, flops, taken):
    print(f"{name:58}{1e3 * taken:9.3f} ms{flops / taken / 1e12:9.1f} TFLOP/s", flush=True)


def in_three_dimensions(x, kernel):
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    padding = ((0, 0), (1, 1), (1, 1))
    return jax.lax.conv_general_dilated(x, kernel, (1, 1, 1), padding, dimension_numbers=numbers)


def images(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def frames_side_by_side(x, kernel):
    frames = x.shape[1] - 2
    beside = jnp.concatenate([x[0, i : i + frames] for i in range(3)], axis=-1)
    return images(beside, jnp.concatenate(list(kernel), axis=2))


def a_convolution_a_tap(x, kernel):
    frames = x.shape[1] - 2
    return sum(images(x[0, i : i + frames], kernel[i]) for i in range(3))


SPELLINGS = (in_three_dimensions, frames_side_by_side, a_convolution_a_tap)


def masked_attention(q, k, v):
    lengths = jnp.full(1, TOKENS, jnp.int32)
    return jax.nn.dot_product_attention(
        q, k, v, key_value_seq_lengths=lengths, implementation="cudnn"
    )


def pallas_attention(q, k, v):
    from jax.experimental.pallas.ops.gpu import attention_mgpu

    config = attention_mgpu.TuningConfig(block_q=64, block_kv=192, max_concurrent_steps=2)
    return attention_mgpu.attention(q, k, v, config)


def gradient(attend):
    return jax.grad(lambda *x: attend(*x).astype(jnp.float32).sum(), argnums=(0, 1, 2))


ATTENTION = [
    ("attention", attention, TOKENS, TOKENS, jnp.bfloat16),
    ("attention", attention, TOKENS, TEXT, jnp.bfloat16),
]
if "H200" in (kind := jax.devices()[0].device_kind) or "H100" in kind:
    prepare_tokamax()
    ATTENTION += [
        ("attention", attention, WHOLE_BLOCKS, WHOLE_BLOCKS, jnp.bfloat16),
        ("tokamax attention", tokamax_attention, TOKENS, TOKENS, jnp.bfloat16),
        ("tokamax attention", tokamax_attention, TOKENS, TEXT, jnp.bfloat16),
        ("masked attention", masked_attention, WHOLE_BLOCKS, WHOLE_BLOCKS, jnp.bfloat16),
        ("jax's Pallas kernel", pallas_attention, WHOLE_BLOCKS, TOKENS // 192 * 192, jnp.float16),
    ]


def main():
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    for rows, columns in ((WIDTH, WIDTH), (WIDTH, HIDDEN), (HIDDEN, WIDTH)):
        taken = seconds(jnp.matmul, normal(TOKENS, rows), normal(rows, columns))
        report(f"matmul {TOKENS} x {rows} x {columns}", 2 * TOKENS * rows * columns, taken)
    for name, attend, queries, keys, dtype in ATTENTION:
        q = normal(1, queries, HEADS, WIDTH // HEADS, dtype=dtype)
        k = normal(1, keys, HEADS, WIDTH // HEADS, dtype=dtype)
        flops = 4 * TOKENS * min(keys, TOKENS) * WIDTH
        report(f"{name} of {queries} to {keys}", flops, seconds(attend, q, k, k))
        if attend in (attention, tokamax_attention):
            taken = seconds(gradient(attend), q, k, k)
            report("... with its gradient (3.5 times the work)", 3.5 * flops, taken)
    for levels, dtype in ((LEVELS, jnp.bfloat16), (ENCODER_LEVELS, jnp.float32)):
        for frames, height, width, channels in levels:
            x = normal(1, frames + 2, height, width, channels, dtype=dtype)
            kernel = normal(3, 3, 3, channels, channels, dtype=dtype)
            flops = 2 * 27 * channels**2 * frames * height * width
            for spelling in SPELLINGS:
                shape = f"{frames} x {height} x {width} x {channels}, {dtype.__name__}"
                report(f"{spelling.__name__}, {shape}", flops, seconds(spelling, x, kernel))


if __name__ == "__main__":
    main()
