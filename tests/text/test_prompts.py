from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from flax import nnx

from flashmotion_jax.models.text_encoder import TextEncoder
from flashmotion_jax.text.prompts import PromptEncoder
from helpers import tiny


class Words:
    """One token a word, the longest prompt 3 words more than a length step."""

    def __call__(self, prompts, length):
        ids, mask = np.zeros((2, len(prompts), length), np.int32)
        for row, prompt in enumerate(prompts):
            words = prompt.split()[:length]
            ids[row, : len(words)] = [len(word) for word in words]
            mask[row, : len(words)] = 1
        return ids, mask


@pytest.fixture(scope="module")
def encoder():
    return tiny.random_module(lambda: TextEncoder(tiny.TEXT, rngs=nnx.Rngs(0)))


def make(encoder, loads, tokenizer=None, **kwargs):
    @contextmanager
    def use():
        loads.append(1)
        yield encoder

    return PromptEncoder(tokenizer or Words(), use, 80, **kwargs)


def test_equals_the_encoder_on_the_padded_prompt(encoder):
    prompts = ["a dog runs", " ".join(["word"] * 67)]
    embeddings = make(encoder, [])(prompts)
    ids, mask = Words()(prompts, 80)
    assert embeddings.shape == (2, 80, 32)
    np.testing.assert_allclose(embeddings, encoder(ids, mask), atol=1e-5)
    assert not np.asarray(embeddings[0, 3:]).any()


def test_encoder_is_loaded_only_for_new_prompts(encoder):
    loads = []
    encode = make(encoder, loads)
    encode(["a", "b", "a"])
    encode(["b", "a"])
    assert len(loads) == 1
    encode(["c"])
    assert len(loads) == 2


def test_a_truncated_prompt_is_told_again_when_it_comes_from_the_disk(encoder, tmp_path):
    told = []

    class Watched(Words):
        def __call__(self, prompts, length):
            told.append(prompts)
            return super().__call__(prompts, length)

    for _ in range(2):
        make(encoder, [], tokenizer=Watched(), cache_dir=tmp_path)(["a dog"])
    assert told == [["a dog"]] * 2


def test_embeddings_on_disk_belong_to_their_encoder(encoder, tmp_path):
    loads = []
    make(encoder, loads, cache_dir=tmp_path / "cache", cache_key="one")(["a dog"])
    make(encoder, loads, cache_dir=tmp_path / "cache", cache_key="one")(["a dog"])
    assert len(loads) == 1
    make(encoder, loads, cache_dir=tmp_path / "cache", cache_key="other")(["a dog"])
    assert len(loads) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 2
