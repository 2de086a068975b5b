from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.runtime.jit import OPTIONS, program


def test_a_program_is_the_function():
    traced = []

    @program
    def double(x):
        traced.append(1)
        return 2 * x

    for _ in range(2):
        np.testing.assert_array_equal(double(jnp.arange(3)), [0, 2, 4])
    assert len(traced) == 1


def test_layers_of_a_stack_are_not_converted_all_at_once():
    """XLA:CPU would hold the float32 copy of every layer's bfloat16 weights."""
    weights = jax.ShapeDtypeStruct((64, 256, 256), jnp.bfloat16)
    x = jax.ShapeDtypeStruct((8, 256), jnp.bfloat16)

    def forward(weights, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    compiled = jax.jit(forward, compiler_options=OPTIONS["cpu"]).lower(weights, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 64 * 256 * 256 * 4 / 8


def test_programs_leave_the_compilation_cache_to_the_user(monkeypatch, tmp_path):
    """Commands choose a folder; see `cli.options.keep_compiled_programs`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    program(lambda x: x + 1)(1)
    assert jax.config.jax_compilation_cache_dir == before
    assert not list(tmp_path.iterdir())
