"""Prompt embeddings, cached so that the text encoder is loaded only for new prompts.

UMT5-XXL is the largest model of the pipeline, 11 GB in bfloat16. Embeddings are kept in memory and,
optionally, on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.models.text_encoder import TextEncoder
from flashmotion_jax.runtime.array_files import read_npz
from flashmotion_jax.runtime.atomic import check_folder, replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.finite import require_finite
from flashmotion_jax.runtime.jit import program

#: Token counts are rounded up to a multiple of this, so that few programs are compiled.
LENGTH_STEP = 64


class Tokenize(Protocol):
    """Converts prompts to padded token ids and a mask, int32 `[B, S]` each."""

    def __call__(self, prompts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokenizes prompts, padded or truncated to `length` tokens."""
        ...


class PromptEncoder:
    """Embeds prompts with a text encoder that is in memory only while it is needed.

    Args:
      tokenizer: The checkpoint's tokenizer.
      text_encoder: Returns a context manager that loads the encoder.
      text_len: Length that embeddings are zero-padded to, in tokens.
      cache_dir: Folder for embeddings on disk, created when needed; None keeps them in memory only.
      cache_key: Identifies the encoder's weights, so that embeddings of other weights are not used.

    Raises:
      UserError: `cache_dir` is not a folder, or cannot be written to.
    """

    def __init__(
        self,
        tokenizer: Tokenize,
        text_encoder: Callable[[], AbstractContextManager[TextEncoder]],
        text_len: int,
        *,
        cache_dir: Path | None = None,
        cache_key: str = "",
    ):
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._text_len = text_len
        if cache_dir is not None:
            check_folder(cache_dir)
        self._cache_dir = cache_dir
        self._cache_key = cache_key
        self._memory: dict[str, np.ndarray] = {}

    def __call__(self, prompts: Sequence[str]) -> jax.Array:
        """Embeds prompts.

        Args:
          prompts: B prompts.

        Returns:
          Embeddings, float32 `[B, text_len, D]`, zero after the tokens of each prompt.

        Raises:
          FloatingPointError: The encoder computes NaN or infinity.
        """
        missing = sorted({prompt for prompt in prompts if not self._recall(prompt)})
        if missing:
            with self._text_encoder() as encoder:
                for prompt in missing:
                    self._store(prompt, self._encode(encoder, prompt))
        embeddings = [self._memory[prompt] for prompt in prompts]
        padded = [np.pad(e, ((0, self._text_len - len(e)), (0, 0))) for e in embeddings]
        return jnp.asarray(np.stack(padded))

    def _encode(self, encoder: TextEncoder, prompt: str) -> np.ndarray:
        ids, mask = self._tokenizer([prompt], self._text_len)
        num_tokens = int(mask.sum())
        # Padding is masked, so cutting it off saves time without changing the result.
        length = min(self._text_len, -(-num_tokens // LENGTH_STEP) * LENGTH_STEP)
        ids, mask = jnp.asarray(ids[:, :length]), jnp.asarray(mask[:, :length])
        embedding = encode_tokens(encoder, ids, mask)
        require_finite("text", "the text encoder", embedding=embedding)
        return np.asarray(embedding[0, :num_tokens], np.float32)

    def _recall(self, prompt: str) -> bool:
        file = self._file(prompt)
        if prompt not in self._memory and file and file.exists():
            embedding = _read(file)
            if embedding is not None and len(embedding) <= self._text_len:
                self._memory[prompt] = embedding
                self._tokenizer([prompt], self._text_len)  # warns if the prompt was truncated
        return prompt in self._memory

    def _store(self, prompt: str, embedding: np.ndarray) -> None:
        self._memory[prompt] = embedding
        if file := self._file(prompt):
            with replacing(file) as scratch:
                np.savez(scratch, embedding=embedding)

    def _file(self, prompt: str) -> Path | None:
        if self._cache_dir is None:
            return None
        digest = hashlib.sha256(f"{self._cache_key}\0{prompt}".encode()).hexdigest()
        return self._cache_dir / f"{digest}.npz"


def _read(file: Path) -> np.ndarray | None:
    """Reads an embedding `[S, D]`; None if the file is damaged, so that it is computed again.

    It is an npz file, as these hold a CRC of their arrays.
    """
    try:
        embedding = read_npz(file)["embedding"]
    except (UserError, KeyError):
        return None
    valid = embedding.dtype == np.float32 and embedding.ndim == 2
    return embedding if valid and np.isfinite(embedding).all() else None


@program
def encode_tokens(encoder: TextEncoder, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Embeds tokens `[B, S]` as `[B, S, D]`; the mask is False for padding."""
    return encoder(ids, mask)
