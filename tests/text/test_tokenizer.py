from __future__ import annotations

import json
import shutil
import sys
import warnings

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from flashmotion_jax.inference.pipeline import shipped_model
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.text.tokenizer import Tokenizer, clean_prompt

SENTENCES = [
    "a red ball rolls to the left, slowly",
    "the camera follows a dog through the park",
    "a car drives along the road at night & stops",
]
SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Unigram tokenizer in the files of umt5-xxl, which name the class T5Tokenizer."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=80,
        special_tokens=list(SPECIAL_TOKENS.values()),
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES * 5, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, **SPECIAL_TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer(folder)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a dog", "a dog"),
        ("  a\tdog \n\n runs\r\n", "a dog runs"),
        ("cats &amp; dogs", "cats & dogs"),
        ("cats &amp;amp; dogs", "cats & dogs"),
        ("&lt;b&gt; &quot;x&quot;&nbsp;y", '<b> "x" y'),
        ("", ""),
    ],
)
@pytest.mark.parametrize("with_ftfy", [True, False])
def test_clean_prompt(text, cleaned, with_ftfy, monkeypatch):
    if with_ftfy:
        pytest.importorskip("ftfy")
    else:
        monkeypatch.setitem(sys.modules, "ftfy", None)
    assert clean_prompt(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("色调艳丽，过曝", "色调艳丽,过曝"),
        ("ＡＢＣ！", "ABC!"),
        ("\u201cquoted\u201d", '"quoted"'),
        ("cafÃ©", "café"),
        ("a\u3000dog", "a dog"),
    ],
)
def test_clean_prompt_repairs_unicode(text, cleaned):
    pytest.importorskip("ftfy")
    assert clean_prompt(text) == cleaned


def test_without_ftfy_warns_once_and_keeps_unicode(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        cleaned = [clean_prompt(text) for text in ("色调，过曝", "a  dog", "静态 &amp; 模糊")]
    assert cleaned == ["色调，过曝", "a dog", "静态 & 模糊"]
    assert ['pip install "flashmotion_jax[convert]"' in str(w.message) for w in caught] == [True]


def test_equals_the_tokenizers_library(folder, tokenizer):
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids, mask = tokenizer(["A RED  ball &amp; a dog", *SENTENCES, ""], length=40)
    assert (ids.shape, ids.dtype, mask.dtype) == ((5, 40), np.int32, np.int32)
    for row, row_mask, text in zip(ids, mask, ["A RED ball & a dog", *SENTENCES, ""], strict=True):
        expected = backend.encode(text).ids
        assert row.tolist() == expected + [0] * (40 - len(expected))
        assert row_mask.tolist() == [1] * len(expected) + [0] * (40 - len(expected))


def test_equals_transformers(folder, tokenizer):
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), **SPECIAL_TOKENS
    )
    expected = reference(
        SENTENCES, padding="max_length", truncation=True, max_length=512, return_tensors="np"
    )
    ids, mask = tokenizer(SENTENCES)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])


def test_long_prompts_are_truncated_with_a_warning_and_keep_the_end_token(tokenizer):
    whole, _ = tokenizer(SENTENCES[:1], length=60)
    with pytest.warns(UserWarning, match=r"'a red ball.* longer than 8 tokens") as caught:
        ids, mask = tokenizer([SENTENCES[0], "a"], length=8)
    assert len(caught) == 1
    assert ids[0].tolist() == [*whole[0, :7], 1]
    assert mask[0].all()


def test_prompt_of_exactly_the_length_is_not_truncated(tokenizer):
    _, mask = tokenizer(SENTENCES[:1], length=60)
    _, exact = tokenizer(SENTENCES[:1], length=int(mask.sum()))
    assert exact.all()


@pytest.mark.parametrize(
    ("prompts", "length", "message"),
    [
        ("a dog", 8, "prompts='a dog'; expected a list"),
        ([], 8, r"prompts=\[\]; expected a list"),
        (["a dog"], 0, "length=0; expected at least 1"),
    ],
)
def test_invalid_arguments_raise(tokenizer, prompts, length, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(prompts, length)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "tokenizer.json does not exist; expected a tokenizer folder"),
        ({"tokenizer_config.json": '{"tokenizer_class": "T5Tokenizer"}'}, "does not exist"),
        ({"tokenizer.json": "{oops"}, "is not a tokenizer .*; copy it again"),
        ({"tokenizer.json": "{}"}, "is not a tokenizer .*; copy it again"),
    ],
)
def test_invalid_tokenizer_files_raise(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        Tokenizer(tmp_path)


def rename(tokens):
    """The library panics, which is no `Exception`, when it encodes a text."""
    tokens["other"] = tokens.pop(next(iter(tokens)))


def remove_name(tokens):
    next(iter(tokens.values()))["tokens"] = []


def remove_id(tokens):
    next(iter(tokens.values()))["ids"] = []


@pytest.mark.parametrize("damage", [rename, remove_name, remove_id])
def test_a_template_of_tokens_that_are_missing_raises(tmp_path, damage):
    folder = shutil.copytree(shipped_model() / "tokenizer", tmp_path / "tokenizer")
    values = json.loads((folder / "tokenizer.json").read_text())
    damage(values["post_processor"]["special_tokens"])
    (folder / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"is not a tokenizer .*; copy it again"):
        Tokenizer(folder)(["a red ball"], 16)


def test_missing_folder_raises(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere/tokenizer\.json does not exist"):
        Tokenizer(tmp_path / "nowhere")


def test_tokenizer_without_padding_raises(folder, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match=r"defines no pad_token; copy tokenizer_config\.json"):
        Tokenizer(tmp_path)


def test_code_in_the_folder_is_not_run(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "evil.py").write_text("raise SystemExit('the code of the folder ran')")
    ids, _ = Tokenizer(tmp_path)(["a dog"], length=8)
    assert ids.any()
