"""What a model can be asked for: the words and pictures that it was trained on."""

from __future__ import annotations

import importlib.resources
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.data.sprites import is_of_sprites, looks_like_sprites
from flashmotion_jax.inference.request import Request
from flashmotion_jax.runtime.errors import UserError

_OTHER_MODEL = "choose another checkpoint with --model DIR, or Pipeline.from_pretrained(DIR)"


def shipped_model() -> Path:
    """Returns the folder of the small trained model that is included in the package.

    Raises:
      UserError: The installation does not contain it.
    """
    folder = Path(str(importlib.resources.files("flashmotion_jax"))) / "assets" / "tiny"
    if not (folder / "model.json").is_file():
        raise UserError(
            f"this installation does not include the small model ({folder} is missing); pass a "
            "checkpoint folder, on the command line with --model DIR"
        )
    return folder


class Domain:
    """The words and pictures that a model knows, as far as its tokenizer says so.

    A tokenizer of whole words knows only those of the training data; with the vocabulary of
    Sprites, the model was trained on Sprites. Other models may be asked for anything.

    Args:
      tokenizer: Tokenizer of the checkpoint.

    Attributes:
      notice: A line that says what the model knows, or None.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._of_sprites = is_of_sprites(getattr(tokenizer, "words", None))
        self.notice: str | None = None
        if self._of_sprites:
            self.notice = (
                "The model knows colored shapes only (it was trained on Sprites); for photographs, "
                "start with --model DIR."
            )

    def check(self, request: Request) -> Request:
        """Warns of prompts and images that the model does not know, and returns the request.

        Warns:
          UserWarning: A prompt has unknown words, or an image does not look like Sprites.
        """
        unknown = {
            word: None
            for prompt in request.prompts
            for word in getattr(self._tokenizer, "unknown_words", lambda _: ())(prompt)
        }
        if unknown:
            words = ", ".join(map(repr, list(unknown)[:20]))
            warnings.warn(f"the model does not know {words} in the prompt", stacklevel=3)
        images = [] if request.images is None else request.images[:, 0]
        if self._of_sprites and not all(map(looks_like_sprites, np.asarray(images))):
            warnings.warn(
                "the image does not look like the colored shapes of Sprites, which are all that "
                f"this model knows, so the video will be noise; {_OTHER_MODEL}",
                stacklevel=3,
            )
        return request
