from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.models import attention as module
from flashmotion_jax.models.attention import attention
from flashmotion_jax.models.softmax_attention import choose_chunk
from flashmotion_jax.models.splash_attention import fits_splash, splash_attention


def dense(q, k, v):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = np.einsum("bnae,bsae->bans", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bans,bsae->bnae", weights / weights.sum(-1, keepdims=True), v)


def inputs(queries=50, keys=33):
    shapes = ((2, queries, 3, 8), (2, keys, 3, 8), (2, keys, 3, 8))
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("max_scores", "chunk"),
    [(2**20, (3, 50)), (2 * 33 * 149, (1, 50)), (2 * 33 * 16, (1, 13)), (1, (1, 1))],
)
def test_equals_dense_attention_in_any_chunks(monkeypatch, max_scores, chunk):
    assert choose_chunk(num_heads=3, num_queries=50, max_scores=max_scores // (2 * 33)) == chunk
    monkeypatch.setattr(module, "MAX_SCORES_CPU", max_scores)
    q, k, v = inputs()
    np.testing.assert_allclose(jax.jit(attention)(q, k, v), dense(q, k, v), atol=2e-6)


@pytest.mark.parametrize("max_scores", [2**20, 2 * 33 * 50, 2 * 33 * 16])
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 2e-6), ("bfloat16", 0.06)])
def test_gradients_equal_those_of_jax(monkeypatch, max_scores, dtype, atol):
    monkeypatch.setattr(module, "MAX_SCORES_CPU", max_scores)
    arrays = [x.astype(dtype) for x in inputs()]

    def gradients(attend, arrays):
        gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(attend(*x))), argnums=(0, 1, 2))
        return jax.jit(gradient)(*arrays)

    exact = gradients(jax.nn.dot_product_attention, [x.astype("float32") for x in arrays])
    for found, expected in zip(gradients(attention, arrays), exact, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=atol)


def test_gradients_of_gradients_equal_those_of_jax():
    def second(attend):
        def penalty(q, k, v):
            return jnp.sum(jax.grad(lambda q: jnp.sum(jnp.sin(attend(q, k, v))))(q) ** 2)

        return jax.jit(jax.grad(penalty, argnums=(0, 1, 2)))(*inputs())

    for found, expected in zip(
        second(attention), second(jax.nn.dot_product_attention), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_matrix_of_all_scores_exists_at_the_full_token_count():
    shape = jax.ShapeDtypeStruct((1, 27280, 24, 128), jnp.bfloat16)
    compiled = jax.jit(attention).lower(shape, shape, shape).compile()
    scores = 27280**2 * 24 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < scores / 20
    gradients = jax.jit(jax.grad(lambda *x: attention(*x).sum(), argnums=(0, 1, 2)))
    compiled = gradients.lower(shape, shape, shape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < scores / 20


def test_only_narrow_16_bit_heads_go_to_gpu_kernels():
    """The VAE's single head of 1024 does not fit cuDNN's kernel; one query has no use for it."""
    fits = {
        (dtype, queries, width): module._fits_gpu(jnp.zeros((1, queries, 1, width), dtype))
        for dtype in (jnp.bfloat16, jnp.float32)
        for queries in (1, 2)
        for width in (128, 1024)
    }
    assert [key for key, fit in fits.items() if fit] == [(jnp.bfloat16, 2, 128)]


@pytest.mark.parametrize(("queries", "keys"), [(520, 520), (512, 30)])
def test_the_kernel_for_tpus_equals_dense_attention_and_its_gradients(queries, keys):
    """Interpreted, with padded queries and keys."""
    shapes = ((1, queries, 2, 128), (1, keys, 2, 128), (1, keys, 2, 128))
    arrays = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]

    def gradients(run):
        gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(run(*x))), argnums=(0, 1, 2))
        return jax.jit(gradient)(*arrays)

    def kernel(q, k, v):
        return splash_attention(q, k, v, interpret=True)

    np.testing.assert_allclose(jax.jit(kernel)(*arrays), dense(*arrays), atol=2e-6)
    for found, expected in zip(gradients(kernel), gradients(attention), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_only_heads_of_whole_registers_and_enough_queries_go_to_splash():
    shapes = ((1, 512, 24, 128), (1, 511, 24, 128), (1, 512, 1, 64))
    assert [fits_splash(jnp.zeros(shape)) for shape in shapes] == [True, False, False]
