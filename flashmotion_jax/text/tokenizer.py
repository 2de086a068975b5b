"""Tokenization of prompts: text cleaning as in Wan2.2, and the UMT5 tokenizer.

Source: Wan2.2 `wan/modules/tokenizers.py`.
"""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tokenizers

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import read_json_object


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


@contextmanager
def _explained(file: Path) -> Generator[None]:
    """Raises what a damaged file makes the library raise as a `UserError`."""
    try:
        yield
    except BaseException as error:
        # A panic of Rust is no Exception. Everything else can be one, even a bare Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{file} is not a tokenizer ({str(error)[:200]}); copy it again") from error


class Tokenizer:
    """A tokenizer loaded from a local folder, exactly as its `tokenizer.json` defines it.

    Attributes:
      words: The words that a tokenizer of whole words knows, sorted; None for any other.

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
        # transformers' classes give the same tokens, but take a second to import, and AutoTokenizer
        # chooses one that replaces the file's normalizer and pre-tokenizer with its own.
        self._file = file
        with _explained(file):
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
            self._tokenizer.encode("a")  # which needs tokens that a damaged file may lack
        self._padding = _padding_token(file.parent)
        if self._tokenizer.token_to_id(self._padding) is None:
            raise UserError(f"{file} has no token {self._padding!r}, its pad_token; copy it again")
        self.words: tuple[str, ...] | None = None
        self._unknown = ""
        if isinstance(model := self._tokenizer.model, tokenizers.models.WordLevel):
            self.words = tuple(sorted(filter(str.isalnum, self._tokenizer.get_vocab())))
            self._unknown = model.unk_token

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
        with _explained(self._file):
            self._tokenizer.enable_truncation(length)
            self._tokenizer.enable_padding(
                length=length,
                pad_token=self._padding,
                pad_id=self._tokenizer.token_to_id(self._padding),
            )
            encodings = self._tokenizer.encode_batch(texts)
            for encoding in encodings:
                lengths = {len(encoding.ids), len(encoding.tokens), len(encoding.offsets)}
                if lengths != {length}:
                    raise ValueError(f"{length} tokens have {sorted(lengths)} ids and names")
        for text, encoding in zip(texts, encodings, strict=True):
            if encoding.overflowing:
                warnings.warn(
                    f"the prompt {text[:40]!r}... is longer than {length} tokens and was truncated",
                    stacklevel=2,
                )
            if self.words and self._is_mostly_unknown(text, encoding):
                # The same text every time, so that Python shows the warning only once.
                warnings.warn(
                    "most words of a prompt are unknown to this model; it knows: "
                    + ", ".join(self.words),
                    stacklevel=2,
                )
        rows = [(encoding.ids, encoding.attention_mask) for encoding in encodings]
        ids, masks = zip(*rows, strict=True)
        return np.array(ids, np.int32), np.array(masks, np.int32)

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """The words of a prompt that a tokenizer of whole words does not know, each once."""
        if not self.words:
            return ()
        text = clean_prompt(prompt)
        with _explained(self._file):
            self._tokenizer.no_truncation()
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        found = (
            text[start:end]
            for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True)
            if token == self._unknown
        )
        return tuple(dict.fromkeys(word for word in found if word.isalnum()))

    def _is_mostly_unknown(self, text: str, encoding: tokenizers.Encoding) -> bool:
        unknown = [
            token == self._unknown
            for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True)
            if text[start:end].isalnum()
        ]
        return 2 * sum(unknown) > len(unknown)


def _padding_token(folder: Path) -> str:
    """The padding token, as text or as an object with a "content"."""
    fix = "copy tokenizer_config.json of the checkpoint"
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = read_json_object(folder / name, fix) if (folder / name).is_file() else {}
        token = settings.get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    raise UserError(f"{folder} defines no pad_token; {fix}")
