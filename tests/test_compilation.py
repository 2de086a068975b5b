from __future__ import annotations

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.compilation import CPU_OPTIONS, listening, program, report


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

    compiled = jax.jit(forward, compiler_options=CPU_OPTIONS).lower(weights, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 64 * 256 * 256 * 4 / 8


def test_each_listener_hears_its_own_steps_of_one_program():
    traced = []

    @jax.jit
    def count(ticket, x):
        traced.append(1)
        for step in range(3):
            x = x + 1
            report(ticket, step + 1, x)
        return x

    heard = [], []
    for listener in heard:
        with listening(listener.append) as ticket:
            count(ticket, jnp.zeros(2))
    assert [sorted(steps) for steps in heard] == [[1, 2, 3], [1, 2, 3]]
    assert len(traced) == 1


def test_the_result_of_a_program_can_be_reported():
    """The sum of what is returned, in its place, breaks XLA:CPU 0.10 and 0.11."""
    heard = []

    def double(ticket, x):
        x = 2 * jnp.sin(x)
        report(ticket, 1, x)
        return x

    with listening(heard.append) as ticket:
        jax.jit(double)(ticket, jnp.ones((64, 64)))
    assert heard == [1]


def test_a_listener_is_let_go():
    class Listener:
        def __call__(self, done):
            pass

    listener = Listener()
    with listening(listener) as ticket:
        jax.jit(lambda ticket: report(ticket, 1, jnp.ones(1)))(ticket)
    reference = weakref.ref(listener)
    del listener
    gc.collect()
    assert reference() is None
    jax.jit(lambda ticket: report(ticket, 1, jnp.ones(1)))(ticket)  # heard by nobody
    jax.effects_barrier()
