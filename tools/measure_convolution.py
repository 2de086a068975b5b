"""Convolutions on a CPU, compared with XLA's: gradients inside a loop, and upsampling.

JAX_PLATFORMS=cpu PYTHONPATH=. python tools/measure_convolution.py
"""

from __future__ import annotations

import itertools
import time

import jax
import jax.numpy as jnp

from flashmotion_jax.models.convolution import convolve, double_and_convolve

REPEATS = 3
CHANNELS = ((16, 16), (48, 12))  # input and output channels


def seconds(convolution, of, images, channels):
    """Best time of a gradient inside a `lax.scan`, in seconds."""
    x = jax.random.normal(jax.random.key(0), (2, images, 32, 32, channels[0]))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, *channels))

    def apply(x, kernel):
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), **options)

    def step(total, x):
        gradient = jax.vjp(apply, x, kernel)[1](jnp.tanh(x[..., : channels[1]]))[of]
        return total + jnp.sum(gradient**2), None

    run = jax.jit(lambda x: jax.lax.scan(step, 0.0, x)[0])
    run(x).block_until_ready()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(x).block_until_ready()
        times.append((time.perf_counter() - start) / len(x))
    return min(times)


def seconds_of_doubling(run, size):
    """Best time to upsample and convolve 17 images of 80 channels, with gradients."""
    x = jax.random.normal(jax.random.key(0), (17, size, size, 80))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 80, 80))
    gradients = jax.jit(jax.grad(lambda *args: jnp.sum(jnp.sin(run(*args))), (0, 1)))
    times = []
    for _ in range(5 * REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(gradients(x, kernel))
        times.append(time.perf_counter() - start)
    return min(times)


def doubled_then_convolved(x, kernel):
    return convolve(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), kernel, (1, 1), "SAME")


def main():
    for size in (8, 16):
        four, plain = (
            seconds_of_doubling(run, size)
            for run in (lambda *args: double_and_convolve(*args, "float32"), doubled_then_convolved)
        )
        print(
            f"doubling {size} x {size} and convolving, with gradients: four small kernels "
            f"{1e3 * four:.1f} ms, in turn {1e3 * plain:.1f} ms, {plain / four:.1f} times"
        )
    cases = itertools.product((("images", 0), ("kernel", 1)), CHANNELS, (8, 32))
    for (name, of), channels, images in cases:
        ours, theirs = (
            seconds(f, of, images, channels) for f in (convolve, jax.lax.conv_general_dilated)
        )
        print(
            f"gradient of the {name}, {images} images of 32 x 32, {channels[0]} to {channels[1]} "
            f"channels: {1e3 * ours:.2f} ms, XLA's {1e3 * theirs:.2f} ms, {theirs / ours:.1f} times"
        )


if __name__ == "__main__":
    main()
