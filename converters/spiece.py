"""Tokenizers in files of weights: a SentencePiece model, or the fields of GGUF.

ComfyUI stores the bytes of `spiece.model` as a tensor `spiece_model`; GGUF has a field for each
part of it. Both become the `tokenizer.json` that this project reads.

Source: SentencePiece `sentencepiece_model.proto`; llama.cpp `gguf-py/gguf/constants.py`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flashmotion_jax.runtime.errors import UserError

from .tensors import StateDict

#: Name of the tensor that holds a SentencePiece model.
TENSOR = "spiece_model"

#: Type of a piece that the text must contain as it is.
_USER_DEFINED = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePiece:
    """A unigram model of SentencePiece.

    Attributes:
      pieces: Pieces and their scores, by token id.
      types: Type of each piece, as in the protocol buffer.
      unk_id, eos_id, pad_id: Ids of the special tokens.
      byte_fallback: Whether unknown characters become bytes.
      add_dummy_prefix: Whether a space is put before the text.
      remove_extra_whitespaces: Whether spaces at the ends and repeated ones are removed.
      charsmap: The rules of normalization, compiled, or empty.
    """

    pieces: Sequence[tuple[str, float]]
    types: Sequence[int]
    unk_id: int
    eos_id: int
    pad_id: int
    byte_fallback: bool
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    charsmap: bytes


def find_model(tensors: StateDict, metadata: Mapping[str, Any]) -> SentencePiece | None:
    """Returns the tokenizer in a file of a text encoder, or None.

    Args:
      tensors: Of the text encoder, without a prefix.
      metadata: Of the file.

    Raises:
      UserError: It is damaged or incomplete.
    """
    if TENSOR in tensors:
        return read_model(bytes(tensors[TENSOR].read()))
    return read_fields(metadata)


def read_model(content: bytes) -> SentencePiece:
    """Reads a `spiece.model`.

    Raises:
      UserError: It is damaged, or not a unigram model.
      ImportError: protobuf is not installed.
    """
    from transformers.convert_slow_tokenizer import import_protobuf

    protobuf: Any = import_protobuf()
    model = protobuf.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError, of a module that has moved
        raise UserError("the tokenizer in the file is damaged; download it again") from error
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    if trainer.model_type != 1 or not model.pieces:
        raise UserError("the tokenizer in the file is no unigram model of SentencePiece")
    return SentencePiece(
        pieces=[(piece.piece, piece.score) for piece in model.pieces],
        types=[piece.type for piece in model.pieces],
        unk_id=trainer.unk_id,
        eos_id=trainer.eos_id,
        pad_id=trainer.pad_id,
        byte_fallback=trainer.byte_fallback,
        add_dummy_prefix=normalizer.add_dummy_prefix,
        remove_extra_whitespaces=normalizer.remove_extra_whitespaces,
        charsmap=normalizer.precompiled_charsmap,
    )


def read_fields(fields: Mapping[str, Any]) -> SentencePiece | None:
    """Reads the tokenizer in the fields of a GGUF file, or returns None if there is none.

    Raises:
      UserError: It is incomplete.
    """
    start = "tokenizer.ggml."
    if fields.get(f"{start}model") != "t5":
        return None
    try:
        types = [int(kind) for kind in fields[f"{start}token_type"]]
        return SentencePiece(
            pieces=list(zip(fields[f"{start}tokens"], fields[f"{start}scores"], strict=True)),
            types=types,
            unk_id=int(fields.get(f"{start}unknown_token_id", types.index(2))),
            eos_id=int(fields[f"{start}eos_token_id"]),
            pad_id=int(fields[f"{start}padding_token_id"]),
            byte_fallback=6 in types,
            add_dummy_prefix=bool(fields.get(f"{start}add_space_prefix", True)),
            remove_extra_whitespaces=bool(fields.get(f"{start}remove_extra_whitespaces", True)),
            charsmap=bytes(fields.get(f"{start}precompiled_charsmap", b"")),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"the tokenizer in the file lacks {error}; download it again") from error


def write_tokenizer(folder: Path, model: SentencePiece) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` of a T5 tokenizer.

    Raises:
      UserError: The ids of the special tokens are not those of pieces.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    names = [piece for piece, _ in model.pieces]
    special = {"pad_token": model.pad_id, "eos_token": model.eos_id, "unk_token": model.unk_id}
    if not all(0 <= number < len(names) for number in special.values()):
        raise UserError(f"the tokenizer in the file has no piece for one of {special}")
    tokenizer = Tokenizer(
        models.Unigram(list(model.pieces), model.unk_id, byte_fallback=model.byte_fallback)
    )
    rules: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:
        rules += [normalizers.Strip(), normalizers.Replace(_regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(rules)
    scheme = "always" if model.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    eos = names[model.eos_id]
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {eos}", special_tokens=[(eos, model.eos_id)]
    )
    tokenizer.add_tokens(
        [
            AddedToken(name, normalized=False)
            for name, kind in zip(names, model.types, strict=True)
            if kind == _USER_DEFINED
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "T5Tokenizer"}
    settings |= {token: names[number] for token, number in special.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _regex(pattern: str) -> Any:
    from tokenizers import Regex

    return Regex(pattern)
