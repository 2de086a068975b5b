"""A whole-word tokenizer, for small models with a vocabulary of a few dozen words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from flashmotion_jax.runtime.atomic import replacing_folder
from flashmotion_jax.runtime.errors import UserError

#: With ids 0, 1 and 2, as in UMT5.
SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
PUNCTUATION = (",", ";", ".")


def vocabulary(words: Sequence[str]) -> tuple[str, ...]:
    """Returns all tokens in the order of their ids: special tokens, punctuation, words."""
    return tuple(dict.fromkeys([*SPECIAL_TOKENS.values(), *PUNCTUATION, *words]))


def write_word_tokenizer(folder: str | Path, words: Sequence[str]) -> None:
    """Writes a tokenizer that `Tokenizer` can load.

    It converts text to lower case and splits it at spaces and punctuation; each punctuation mark is
    a token. Words outside the vocabulary become `<unk>`, and every prompt ends with `</s>`.

    Args:
      folder: Folder of the tokenizer; an existing one is replaced.
      words: Lower-case words without spaces or punctuation.

    Raises:
      UserError: `words` is empty, or contains a word that text is never split into.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    if not words:
        raise UserError("no words for the tokenizer; expected every word that prompts use")
    ids = {token: number for number, token in enumerate(vocabulary(words))}
    eos = SPECIAL_TOKENS["eos_token"]
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", special_tokens=[(eos, ids[eos])]
    )
    for word in words:
        if tokenizer.encode(word, add_special_tokens=False).tokens != [word]:
            raise UserError(f"word {word!r}; expected lower case, without spaces or punctuation")
    with replacing_folder(folder) as scratch:
        scratch.mkdir()
        tokenizer.save(str(scratch / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL_TOKENS}
        (scratch / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
