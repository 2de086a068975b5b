"""The text encoder against transformers' UMT5, live or as stored numbers.

`python tests/models/test_text_encoder.py` stores them again, in golden/text_encoder.npz.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from flashmotion_jax.config import TextEncoderConfig
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.models.text_encoder import TextEncoder, relative_buckets
from flashmotion_jax.runtime.sharding import BATCH, make_mesh, place

GOLDEN = Path(__file__).parent / "golden" / "text_encoder.npz"
# Attention is wider than the model, and the prompts are longer than the last bucket's distance.
CONFIG = TextEncoderConfig(
    vocab_size=97, dim=32, num_heads=3, head_dim=16, ffn_dim=40, num_layers=3
)
LENGTHS = (300, 171, 7, 1)
IDS = np.random.RandomState(1).randint(2, CONFIG.vocab_size, (len(LENGTHS), max(LENGTHS)))
MASK = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int32)
TORCH_NAMES = {
    "attn.q.kernel": "layer.0.SelfAttention.q",
    "attn.k.kernel": "layer.0.SelfAttention.k",
    "attn.v.kernel": "layer.0.SelfAttention.v",
    "attn.o.kernel": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm1.scale": "layer.0.layer_norm",
    "norm2.scale": "layer.1.layer_norm",
    "ffn.gate.kernel": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1.kernel": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2.kernel": "layer.1.DenseReluDense.wo",
}


def make_encoder(policy=None):
    """An encoder with weights that no version of jax changes, large enough for scores to matter."""
    policy = policy or Policy()
    graph, state = nnx.split(
        nnx.eval_shape(lambda: TextEncoder(CONFIG, policy=policy, rngs=nnx.Rngs(0)))
    )
    random = np.random.RandomState(0)
    weights = {}
    for path, param in sorted(nnx.to_flat_state(state)):
        value = random.standard_normal(param.shape)
        if path[-1] == "kernel":
            value /= np.sqrt(param.shape[-2])
        if path[-1] == "scale":
            value = 1 + 0.1 * value
        weights[path] = param.replace(jnp.asarray(value, param.dtype))
    return nnx.merge(graph, nnx.from_flat_state(weights))


def torch_encoder(encoder):
    import torch
    import transformers

    def tensor(path, value):
        value = np.asarray(value)
        return torch.tensor(value.T if path.endswith("kernel") else value)

    weights = {}
    for keys, param in nnx.to_flat_state(nnx.state(encoder)):
        path = ".".join(keys)
        if path.startswith("blocks."):
            for layer, value in enumerate(param[...]):
                name = TORCH_NAMES[path.removeprefix("blocks.")]
                weights[f"encoder.block.{layer}.{name}.weight"] = tensor(path, value)
    weights["shared.weight"] = tensor("", encoder.token_embedding.embedding[...])
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    weights["encoder.final_layer_norm.weight"] = tensor("", encoder.norm.scale[...])
    model = transformers.UMT5EncoderModel(torch_config(CONFIG)).eval()
    model.load_state_dict(weights)
    return model


def torch_config(config):
    import transformers

    return transformers.UMT5Config(
        vocab_size=config.vocab_size,
        d_model=config.dim,
        d_kv=config.head_dim,
        d_ff=config.ffn_dim,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        feed_forward_proj="gated-gelu",
    )


def reference_output():
    import torch

    with torch.no_grad():
        output = torch_encoder(make_encoder())(torch.tensor(IDS), torch.tensor(MASK))
    return output.last_hidden_state.numpy() * MASK[..., None]


def store_golden():
    np.savez_compressed(GOLDEN, every_40th=reference_output()[:, ::40])


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(scope="module")
def output(encoder):
    return np.asarray(encoder(IDS, MASK))


def test_equals_transformers(output):
    pytest.importorskip("torch")
    np.testing.assert_allclose(output, reference_output(), rtol=0, atol=1e-5)


def test_equals_stored_numbers(output):
    np.testing.assert_allclose(output[:, ::40], np.load(GOLDEN)["every_40th"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (16, 40)])
def test_buckets_equal_transformers(num_buckets, max_distance):
    torch = pytest.importorskip("torch")
    from transformers import UMT5Config
    from transformers.models.umt5.modeling_umt5 import UMT5Attention

    attention = UMT5Attention(
        UMT5Config(
            d_model=8,
            d_kv=4,
            num_heads=2,
            relative_attention_num_buckets=num_buckets,
            relative_attention_max_distance=max_distance,
            is_decoder=False,
        )
    )
    positions = torch.arange(512)
    expected = attention._relative_position_bucket(positions[None] - positions[:, None])
    actual = relative_buckets(512, num_buckets, max_distance)
    np.testing.assert_array_equal(actual, expected.numpy())


def test_buckets_of_one_query():
    after = relative_buckets(300, 32, 128)[0]
    before = relative_buckets(300, 32, 128)[:, 0]
    distances = [0, 1, 7, 8, 15, 16, 31, 32, 64, 127, 128, 299]
    assert before[distances].tolist() == [0, 1, 7, 8, 9, 10, 11, 12, 14, 15, 15, 15]
    assert after[distances].tolist() == [0, 17, 23, 24, 25, 26, 27, 28, 30, 31, 31, 31]


def test_zero_past_the_mask(output):
    assert output.dtype == np.float32
    assert not output[MASK == 0].any()
    assert output[MASK == 1].all()


def test_padding_content_changes_nothing(encoder, output):
    other_padding = np.where(MASK == 1, IDS, (IDS + 13) % CONFIG.vocab_size)
    np.testing.assert_array_equal(encoder(other_padding, MASK), output)


def test_amount_of_padding_changes_nothing(encoder, output):
    shorter = encoder(IDS[1:2, :171], MASK[1:2, :171])
    np.testing.assert_allclose(shorter, output[1:2, :171], rtol=0, atol=1e-5)


def test_each_layer_has_its_own_position_biases(output):
    encoder = make_encoder()
    table = encoder.blocks.pos_embedding.embedding
    table[...] = table[...][jnp.array([1, 0, 2])]
    assert np.abs(encoder(IDS, MASK) - output).max() > 0.1


def test_bfloat16(output):
    encoder = make_encoder(Policy(jnp.bfloat16, jnp.bfloat16))
    rounded = np.asarray(encoder(IDS, MASK))
    assert rounded.dtype == np.float32
    assert np.linalg.norm(rounded - output) < 2e-2 * np.linalg.norm(output)


def test_one_compilation(encoder):
    encode = jax.jit(lambda encoder, ids, mask: encoder(ids, mask))
    encode(encoder, IDS, MASK)
    encode(encoder, IDS[::-1], MASK[::-1])
    assert encode._cache_size() == 1


@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_sharded_equals_unsharded(encoder, axis):
    devices = jax.device_count()
    ids, mask = (np.resize(array, (devices, 300)) for array in (IDS, MASK))
    mesh = make_mesh(**{axis: devices})
    with jax.set_mesh(mesh):
        batch = jax.device_put((ids, mask), NamedSharding(mesh, BATCH))
        sharded = jax.jit(lambda encoder, batch: encoder(*batch))(place(encoder, mesh), batch)
    assert jax.typeof(sharded).sharding.spec[0] == BATCH[0]
    np.testing.assert_allclose(sharded, encoder(ids, mask), rtol=0, atol=1e-5)


def full_size():
    policy = Policy(jnp.bfloat16, jnp.bfloat16)
    return nnx.eval_shape(lambda: TextEncoder(TextEncoderConfig(), policy=policy, rngs=nnx.Rngs(0)))


def test_full_size():
    state = nnx.state(full_size())
    params = {".".join(path): param for path, param in nnx.to_flat_state(state)}
    assert sum(param.size for param in params.values()) == 5_680_910_336
    assert params["blocks.pos_embedding.embedding"].shape == (24, 32, 64)
    float32 = {path for path, param in params.items() if param.dtype == jnp.float32}
    assert float32 == {
        "blocks.norm1.scale",
        "blocks.norm2.scale",
        "blocks.pos_embedding.embedding",
        "norm.scale",
    }
    ids = jax.ShapeDtypeStruct((2, 512), jnp.int32)
    out = jax.eval_shape(lambda encoder, ids: encoder(ids, ids), full_size(), ids)
    assert (out.shape, out.dtype) == ((2, 512, 4096), jnp.float32)


def test_full_size_equals_transformers():
    torch = pytest.importorskip("torch")
    import transformers

    with torch.device("meta"):
        model = transformers.UMT5EncoderModel(torch_config(TextEncoderConfig()))
    ours = sum(param.size for param in jax.tree.leaves(nnx.state(full_size())))
    assert ours == sum(param.numel() for param in model.parameters())


def test_memory_does_not_grow_with_layers():
    def scratch_bytes(num_layers):
        config = dataclasses.replace(CONFIG, num_layers=num_layers)
        encoder = nnx.eval_shape(lambda: TextEncoder(config, rngs=nnx.Rngs(0)))
        ids = jax.ShapeDtypeStruct((1, 512), jnp.int32)
        encode = jax.jit(lambda encoder, ids: encoder(ids, ids))
        return encode.lower(encoder, ids).compile().memory_analysis().temp_size_in_bytes

    scores = CONFIG.num_heads * 512 * 512 * 4
    assert scratch_bytes(24) - scratch_bytes(2) < scores / 10


def test_unequal_shapes_raise(encoder):
    with pytest.raises(ValueError, match=r"ids have shape \(4, 300\) and mask \(4, 299\)"):
        encoder(IDS, MASK[:, 1:])


def test_an_id_outside_the_vocabulary_gives_nan(encoder):
    outside = np.full((1, 2), CONFIG.vocab_size)
    assert np.isnan(encoder(outside, np.ones_like(outside))).all()


if __name__ == "__main__":
    store_golden()
