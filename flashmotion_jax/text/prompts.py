"""Prompts to text embeddings: the encoder is loaded for new prompts only, and let go of at once.

UMT5-XXL is the largest model of the pipeline, 11 GB in bfloat16, so an embedding is kept in
memory and, where a folder is given, on disk.
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
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.jit import program

#: Token counts are rounded up to it, so that a few programs serve prompts of all lengths.
LENGTH_STEP = 64


class Tokenize(Protocol):
    """Turns prompts into padded token ids and their mask, int32 `[B, S]` each."""

    def __call__(self, prompts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Pads or cuts to `length` tokens."""
        ...


class PromptEncoder:
    """Embeds prompts through a text encoder that exists only while it is needed.

    Args:
      tokenizer: the checkpoint's tokenizer.
      text_encoder: enters a context in which the encoder is loaded.
      text_len: tokens an embedding is padded to with zeros.
      cache_dir: folder for embeddings on disk, made when needed; None keeps them in memory only.
      cache_key: names the encoder's weights: embeddings of another encoder are never taken.
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
        self._cache_dir = cache_dir
        self._cache_key = cache_key
        self._memory: dict[str, np.ndarray] = {}

    def __call__(self, prompts: Sequence[str]) -> jax.Array:
        """Embeddings of the prompts.

        Args:
          prompts: B texts.

        Returns:
          float32 `[B, text_len, D]`, zero past each prompt's tokens.
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
        # Padding is masked, so cutting it changes nothing but the time it takes.
        length = min(self._text_len, -(-num_tokens // LENGTH_STEP) * LENGTH_STEP)
        ids, mask = jnp.asarray(ids[:, :length]), jnp.asarray(mask[:, :length])
        embedding = encode_tokens(encoder, ids, mask)
        return np.asarray(embedding[0, :num_tokens], np.float32)

    def _recall(self, prompt: str) -> bool:
        file = self._file(prompt)
        if prompt not in self._memory and file and file.exists():
            self._memory[prompt] = np.load(file, allow_pickle=False)
        return prompt in self._memory

    def _store(self, prompt: str, embedding: np.ndarray) -> None:
        self._memory[prompt] = embedding
        if file := self._file(prompt):
            with replacing(file) as scratch:
                np.save(scratch, embedding)

    def _file(self, prompt: str) -> Path | None:
        if self._cache_dir is None:
            return None
        digest = hashlib.sha256(f"{self._cache_key}\0{prompt}".encode()).hexdigest()
        return self._cache_dir / f"{digest}.npy"


@program
def encode_tokens(encoder: TextEncoder, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Embeddings `[B, S, D]` of tokens `[B, S]`; the mask is False past each text."""
    return encoder(ids, mask)
