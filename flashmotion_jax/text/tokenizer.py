"""Tokenization of prompts: text cleaning as in Wan2.2, and the UMT5 tokenizer.

Source: Wan2.2 `wan/modules/tokenizers.py`.
"""

from __future__ import annotations

import html
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flashmotion_jax.runtime.errors import UserError

if TYPE_CHECKING:
    import tokenizers


def clean_prompt(text: str) -> str:
    """Repairs broken Unicode, decodes HTML entities and collapses whitespace.

    Without ftfy, Unicode is not repaired; a warning is shown if that could change tokens.

    Source: Wan2.2 `wan/modules/tokenizers.py`, `basic_clean` and `whitespace_clean`.
    """
    decoded = html.unescape(html.unescape(_fix_unicode(text)))
    return re.sub(r"\s+", " ", decoded).strip()


def _fix_unicode(text: str) -> str:
    try:
        import ftfy
    except ImportError:
        if not text.isascii():
            # The same text every time, so that Python shows the warning only once.
            warnings.warn(
                "ftfy is not installed, so non-ASCII prompts may be tokenized differently than in "
                'Wan2.2; pip install "flashmotion_jax[convert]"',
                stacklevel=3,
            )
        return text
    return ftfy.fix_text(text)


class Tokenizer:
    """A tokenizer loaded from a local folder, exactly as its `tokenizer.json` defines it.

    Raises:
      UserError: The folder is missing, or does not contain a tokenizer with a padding token.
    """

    def __init__(self, folder: str | Path):
        file = Path(folder) / "tokenizer.json"
        if not file.is_file():
            raise UserError(
                f"{file} does not exist; expected a tokenizer folder: google/umt5-xxl in the "
                "original Wan2.2 checkpoint, or tokenizer in the diffusers one"
            )
        # Without torch, transformers advises to install it, but tokenizers do not need it.
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        import tokenizers
        import transformers  # takes seconds

        try:
            # AutoTokenizer would choose T5Tokenizer, which since transformers 5 replaces the file's
            # normalizer and pre-tokenizer with its own. This class also runs no code from the
            # folder.
            self._tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
                file.parent, local_files_only=True
            )
        except Exception as error:  # a damaged file can raise anything, even a bare Exception
            raise UserError(f"{file} is not a tokenizer ({error}); copy it again") from error
        if self._tokenizer.pad_token is None:
            raise UserError(
                f"{file.parent} defines no pad_token; copy tokenizer_config.json of the checkpoint"
            )
        backend = self._tokenizer.backend_tokenizer
        has_words = isinstance(backend.model, tokenizers.models.WordLevel)
        words = sorted(filter(str.isalnum, backend.get_vocab())) if has_words else []
        self._words = ", ".join(words)  # the vocabulary of whole words; empty for subword models

    def __call__(self, prompts: Sequence[str], length: int = 512) -> tuple[np.ndarray, np.ndarray]:
        """Cleans and tokenizes prompts, and appends the end-of-sequence token.

        Args:
          prompts: B prompts; `""` is the empty prompt.
          length: Number of tokens S. Shorter prompts are padded, longer ones are truncated with a
            warning.

        Returns:
          Token ids and mask, int32 `[B, S]` each; the mask is 1 for tokens and 0 for padding.

        Raises:
          UserError: `prompts` is empty or a single string, or the length is below 1.
        """
        if isinstance(prompts, str) or not prompts:
            raise UserError(f"prompts={prompts!r}; expected a list of one or more strings")
        if length < 1:
            raise UserError(f"length={length}; expected at least 1 token, usually 512")
        texts = [clean_prompt(prompt) for prompt in prompts]
        batch = self._tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="np",
        )
        for text, encoding in zip(texts, batch.encodings, strict=True):
            if encoding.overflowing:
                warnings.warn(
                    f"the prompt {text[:40]!r}... is longer than {length} tokens and was truncated",
                    stacklevel=2,
                )
            if self._words and self._is_mostly_unknown(text, encoding):
                # The same text every time, so that Python shows the warning only once.
                warnings.warn(
                    f"most words of a prompt are unknown to this model; it knows: {self._words}",
                    stacklevel=2,
                )
        return batch["input_ids"].astype(np.int32), batch["attention_mask"].astype(np.int32)

    def _is_mostly_unknown(self, text: str, encoding: tokenizers.Encoding) -> bool:
        unknown = [
            number == self._tokenizer.unk_token_id
            for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if text[start:end].isalnum()
        ]
        return 2 * sum(unknown) > len(unknown)
