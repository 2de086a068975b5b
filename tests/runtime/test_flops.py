"""FLOPs against analytic counts, PyTorch's counter, and the published work of Wan2.2."""

from __future__ import annotations

import functools

import jax
import jax._src.cudnn.fused_attention_stablehlo as cudnn
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from flashmotion_jax.config import DiTConfig, VAEConfig
from flashmotion_jax.models.attention import MAX_SCORES_CPU, attention
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.softmax_attention import choose_chunk
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.flops import count_flops


def abstract(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


X, W = abstract(4, 8), abstract(8, 8)
MATMUL = 2 * 4 * 8 * 8


def test_a_batched_contraction():
    flops = count_flops(
        lambda a, b: jnp.einsum("bnce,bmce->bnm", a, b), abstract(3, 5, 7, 2), abstract(3, 11, 7, 2)
    )
    assert flops == 2 * 3 * 5 * 11 * 7 * 2


@jax.custom_vjp
def with_own_gradient(x, w):
    return x @ w


with_own_gradient.defvjp(
    lambda x, w: (x @ w, (x, w)), lambda res, g: (g @ res[1].T, (g.T @ res[0]).T)
)


def loop(length, x, w):
    return jax.lax.fori_loop(0, length, lambda _, x: x @ w, x)


@pytest.mark.parametrize(
    ("function", "matmuls"),
    [
        (lambda x, w: jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7)[0], 7),
        (lambda x, w: jax.lax.map(lambda _: jax.lax.map(lambda _: x @ w, x), x), 16),
        (functools.partial(loop, 5), 5),
        (jax.jit(lambda x, w: jax.jit(jnp.matmul)(x, w) @ w), 2),
        (lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w), 1.5),
        (jax.checkpoint(jnp.matmul), 1),
        (with_own_gradient, 1),
        (jax.grad(lambda x, w: with_own_gradient(x, w).sum(), (0, 1)), 3),
        (lambda x, w: jax.lax.while_loop(lambda x: x[0, 0] < 9, jnp.exp, x) @ w, 1),
        (lambda x, w: jnp.sort(jnp.tanh(x)) * w[:1], 0),
    ],
)
def test_programs_inside_programs(function, matmuls):
    assert count_flops(function, X, W) == matmuls * MATMUL


def test_a_loop_of_unknown_length_is_an_error():
    with pytest.raises(ValueError, match=r"the while around a matmul.*use jax\.lax\.scan"):
        count_flops(loop, abstract(dtype=jnp.int32), X, W)


def test_a_gradient_is_three_forward_passes_and_four_with_recomputation():
    def chain(x, w):
        return jnp.tanh(jnp.tanh(x @ w) @ w).sum()

    forward = count_flops(chain, X, W)
    assert count_flops(jax.grad(chain, (0, 1)), X, W) == 3 * forward
    assert count_flops(jax.grad(jax.checkpoint(chain), (0, 1)), X, W) == 4 * forward


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0), (3, 0)])
def test_convolutions_are_counted_as_pytorch_does(stride, padding):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, ((padding,) * 2,) * 2)

    x = torch.ones(2, 8, 16, 16, requires_grad=True)
    kernel = torch.ones(12, 8, 3, 3, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        out = torch.nn.functional.conv2d(x, kernel, stride=stride, padding=padding)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    args = abstract(*x.shape), abstract(*kernel.shape)
    assert count_flops(convolve, *args) == forward.get_total_flops()
    if padding:  # Without, the gradient is padded itself, and taps on padding count here.
        gradient = count_flops(jax.grad(lambda *a: convolve(*a).sum(), (0, 1)), *args)
        assert gradient == forward.get_total_flops() + backward.get_total_flops()


def test_groups_divide_the_work_and_its_gradient():
    def convolve(groups, x, kernel):
        out = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", feature_group_count=groups)
        return out.sum()

    gradient = jax.grad(convolve, (1, 2))
    x = abstract(2, 8, 16, 16)
    for function, passes in (convolve, 1), (gradient, 3):
        flops = count_flops(functools.partial(function, 4), x, abstract(12, 2, 3, 3))
        assert flops == passes * 2 * (2 * 12 * 8 * 8) * 2 * 9


def test_a_sharded_program_counts_all_devices():
    mesh = jax.make_mesh((2, 4), ("data", "context"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spec = P(("data", "context"))
    sharded = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(spec, P()), out_specs=spec)
    partly = jax.shard_map(
        jnp.matmul, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"), axis_names={"data"}
    )
    x = abstract(16, 8)
    assert count_flops(sharded, x, W) == count_flops(jnp.matmul, x, W)
    assert count_flops(jax.jit(partly), x, W) == count_flops(jnp.matmul, x, W)


def test_a_pallas_kernel_counts_its_whole_grid():
    def kernel(x_ref, w_ref, out_ref):
        out_ref[...] = x_ref[...] @ w_ref[...]

    rows = pl.BlockSpec((2, 8), lambda i: (i, 0))
    matmul = pl.pallas_call(
        kernel,
        out_shape=X,
        grid=(2,),
        in_specs=[rows, pl.BlockSpec((8, 8), lambda i: (0, 0))],
        out_specs=rows,
    )
    assert count_flops(matmul, X, W) == MATMUL


@pytest.mark.parametrize("backend", ["gpu", "cpu"])
def test_attention_kernels(monkeypatch, backend):
    """On a GPU the program holds cuDNN's kernel, of which only the name is seen."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91100)
    q = abstract(2, 128, 3, 64, dtype=jnp.bfloat16)
    k = abstract(2, 256, 3, 64, dtype=jnp.bfloat16)
    matmul = 2 * 2 * 3 * 128 * 256 * 64

    def attend(q, k, v):  # A function of its own: traces are kept, and know no backend.
        return attention(q, k, v)

    gradient = jax.grad(lambda *qkv: attend(*qkv).astype(jnp.float32).sum(), (0, 1, 2))
    assert ("fwd_wrapper" in str(jax.make_jaxpr(attend)(q, k, k))) == (backend == "gpu")
    assert count_flops(attend, q, k, k) == 2 * matmul
    # Either computes the scores again in its backward pass.
    assert count_flops(gradient, q, k, k) == 7 * matmul


def test_dit_at_full_size():
    """121 x 704 x 1280: 27,280 tokens, 517 TFLOP in Wan2.2's own count."""
    config = DiTConfig()
    dit = nnx.eval_shape(lambda: DiT(config, rngs=nnx.Rngs(0)))
    frames, height, width, text_len = 31, 44, 80, 512
    flops = count_flops(
        DiT.__call__,
        dit,
        abstract(1, frames, height, width, 48),
        abstract(1, frames),
        abstract(1, text_len, config.text_dim),
    )
    dim, mlp, layers = config.dim, config.ffn_dim, config.num_layers
    tokens = frames * height * width // 4
    patches = 2 * tokens * (4 * 48) * dim
    text = text_len * (config.text_dim * dim + dim * dim + layers * 2 * dim * dim)
    time = frames * (config.freq_dim * dim + dim * dim + 6 * dim * dim)
    linear = layers * tokens * (6 * dim * dim + 2 * dim * mlp)

    def scores(keys):
        """Queries come in chunks on a CPU, the last one padded."""
        chunk = choose_chunk(config.num_heads, tokens, MAX_SCORES_CPU // keys).queries
        return -(-tokens // chunk) * chunk * keys

    attended = layers * 2 * dim * (scores(tokens) + scores(text_len))
    assert flops == 2 * (patches + text + time + linear + attended)
    assert flops / 1e12 == pytest.approx(517, rel=2e-3)
    assert 2 * attended / 1e12 == pytest.approx(280, rel=2e-3)


@pytest.mark.parametrize("backend", ["cpu", "tpu"])
def test_vae_at_full_size(monkeypatch, backend):
    """As 2-D convolutions and as 3-D ones: the same work, and less than Wan2.2's.

    Wan2.2 takes 2,011, 383 and 4.2: it convolves the zeros before the first frame too, and doubles
    images before they are convolved.
    """
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    vae = nnx.eval_shape(lambda: VAE(VAEConfig(), rngs=nnx.Rngs(0)))

    def encode_work(frames):
        video = abstract(1, frames, 704, 1280, 3)
        return count_flops(lambda vae, video: vae.encode(video), vae, video)

    decode = count_flops(lambda vae, z: vae.decode(z), vae, abstract(1, 31, 44, 80, 48))
    encode, image = encode_work(121), encode_work(1)
    # Attention in chunks, on a CPU and a GPU, pads the last of them.
    assert decode / 1e12 == pytest.approx(1848.7, abs=0.4)
    assert encode / 1e12 == pytest.approx(379.8, abs=0.3)
    assert image / 1e12 == pytest.approx(1.49, abs=0.01)
