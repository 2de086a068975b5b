"""A tokenizer of whole words, for a small model whose prompts come from a few dozen of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from flashmotion_jax.runtime.atomic import replacing_folder
from flashmotion_jax.runtime.errors import UserError

#: Their ids are 0, 1 and 2, as in UMT5.
SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
PUNCTUATION = (",", ";", ".")


def vocabulary(words: Sequence[str]) -> tuple[str, ...]:
    """All tokens in the order of their ids: special ones, punctuation, then words as given."""
    return tuple(dict.fromkeys([*SPECIAL_TOKENS.values(), *PUNCTUATION, *words]))


def write_word_tokenizer(folder: str | Path, words: Sequence[str]) -> None:
    """Writes a tokenizer in the files that `Tokenizer` reads.

    Text is lower-cased and split at spaces and punctuation, each mark a token of its own. What is
    not in the vocabulary becomes `<unk>`, and `</s>` ends every prompt.

    Args:
      folder: of the tokenizer; one that is there is replaced.
      words: lower-case words without spaces or punctuation in them.

    Raises:
      UserError: no words, or one that no text would be split into.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    if not words:
        raise UserError("no words for the tokenizer; expected every word that prompts are made of")
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
            raise UserError(
                f"word {word!r}; expected one in lower case, without spaces or punctuation"
            )
    with replacing_folder(folder) as scratch:
        scratch.mkdir()
        tokenizer.save(str(scratch / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL_TOKENS}
        (scratch / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
