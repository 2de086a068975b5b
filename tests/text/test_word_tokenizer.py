from __future__ import annotations

import warnings

import pytest

from flashmotion_jax.text.tokenizer import Tokenizer
from flashmotion_jax.text.word_tokenizer import vocabulary, write_word_tokenizer

WORDS = ("a", "circle", "left", "moves", "red", "the", "to")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    write_word_tokenizer(folder, WORDS)
    return Tokenizer(folder)


def decoded(tokenizer, prompt, length=12):
    """The tokens of a prompt by name, without padding."""
    ids, mask = tokenizer([prompt], length)
    assert not ids[mask == 0].any()
    return [vocabulary(WORDS)[number] for number in ids[mask == 1]]


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("a red circle", ["a", "red", "circle", "</s>"]),
        ("A  Red CIRCLE", ["a", "red", "circle", "</s>"]),
        ("the circle,a red; to.", ["the", "circle", ",", "a", "red", ";", "to", ".", "</s>"]),
        ("the red;, dog", ["the", "red", ";", ",", "<unk>", "</s>"]),
        ("", ["</s>"]),
    ],
)
def test_words_and_punctuation_are_tokens(tokenizer, prompt, tokens):
    assert decoded(tokenizer, prompt) == tokens


def test_special_tokens_have_the_ids_of_umt5():
    assert vocabulary(["a", "."]) == ("<pad>", "</s>", "<unk>", ",", ";", ".", "a")


def test_mostly_unknown_prompt_warns_once_and_lists_the_vocabulary(tokenizer):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for prompt in ("an astronaut, smiles", "ein Hund, der Ball", "a red circle moves up, up"):
            tokenizer([prompt], 12)
    assert [str(warning.message) for warning in caught] == [
        "most words of a prompt are unknown to this model; it knows: "
        "a, circle, left, moves, red, the, to"
    ]


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a red circle moves, up; up", ("up",)),
        ("An astronaut, smiles", ("An", "astronaut", "smiles")),
        ("A RED circle", ()),
        ("a " * 600 + "dog", ("dog",)),
        (", ; . !", ()),
        ("", ()),
    ],
)
def test_unknown_words_are_named_once(tokenizer, prompt, unknown):
    assert tokenizer.unknown_words(prompt) == unknown
    ids, _ = tokenizer(["a red circle"], 64)  # which pads as before
    assert ids.shape == (1, 64)


@pytest.mark.parametrize("prompt", ["a red dog", "a dog", ", ; . !", ""])
def test_half_known_prompt_does_not_warn(tokenizer, prompt):
    tokenizer([prompt], 12)


@pytest.mark.parametrize("word", ["Red", "two words", "half-moon", "", "café\u0301 "])
def test_invalid_word_raises_and_writes_nothing(tmp_path, word):
    with pytest.raises(ValueError, match=r"expected lower case"):
        write_word_tokenizer(tmp_path / "tokenizer", ["a", word])
    assert not list(tmp_path.iterdir())


def test_empty_vocabulary_raises(tmp_path):
    with pytest.raises(ValueError, match="no words"):
        write_word_tokenizer(tmp_path / "tokenizer", [])
