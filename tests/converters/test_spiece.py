"""Tokenizers in files of weights, against the library SentencePiece."""

from __future__ import annotations

import io

import pytest

from flashmotion_jax.converters import spiece
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.text.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

SENTENCES = [
    "a red ball rolls to the left, slowly",
    "the camera follows a dog through the park",
    "an astronaut looks around and smiles",
    "Ein Hund läuft durch den Park; 一只狗在公园里奔跑。",
]
TEXTS = ["a dog rolls  slowly", "the PARK, ﬁne!", "läuft 狗 ☃ 12", "", "left left"]


def train(byte_fallback):
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=content,
        vocab_size=400 if byte_fallback else 130,
        model_type="unigram",
        byte_fallback=byte_fallback,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return content.getvalue()


@pytest.fixture(scope="module", params=[False, True], ids=["unknown", "bytes"])
def content(request):
    return train(request.param)


def assert_same(folder, content):
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content)
    ours = Tokenizer(folder)
    ids, mask = ours(TEXTS, length=64)
    for text, row, valid in zip(TEXTS, ids, mask, strict=True):
        assert list(row[: valid.sum()]) == [*theirs.encode(text), theirs.eos_id()], text


def test_model(tmp_path, content):
    spiece.write_tokenizer(tmp_path, spiece.read_model(content))
    assert_same(tmp_path, content)


def test_fields_of_gguf(tmp_path, content):
    model = spiece.read_model(content)
    fields = {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": [piece for piece, _ in model.pieces],
        "tokenizer.ggml.scores": [score for _, score in model.pieces],
        "tokenizer.ggml.token_type": model.types,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
        "tokenizer.ggml.precompiled_charsmap": list(model.charsmap),
    }
    assert spiece.read_fields(fields) == model
    assert spiece.read_fields({"tokenizer.ggml.model": "llama"}) is None
    del fields["tokenizer.ggml.scores"]
    with pytest.raises(UserError, match=r"lacks 'tokenizer\.ggml\.scores'"):
        spiece.read_fields(fields)


@pytest.mark.parametrize("damaged", [b"", b"hello", bytes(100)])
def test_damaged(damaged):
    with pytest.raises(UserError, match=r"damaged|no unigram"):
        spiece.read_model(damaged)
