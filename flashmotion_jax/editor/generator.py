"""The model behind the page: what it takes, a request checked, a video made."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flashmotion_jax.config import ADAPTERS, DiTConfig, Grid, SamplingConfig, VAEConfig
from flashmotion_jax.data.sprites import VOCABULARY
from flashmotion_jax.runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from flashmotion_jax.inference.pipeline import Pipeline
    from flashmotion_jax.inference.request import Request
    from flashmotion_jax.runtime.progress import Progress

_WHOLE = ("seed", "steps", "frames")
_REAL = ("guidance", "adapter_scale")


class Facts(NamedTuple):
    """What a checkpoint says without its weights."""

    sampling: SamplingConfig
    grid: Grid
    adapters: tuple[str, ...]
    words: tuple[str, ...] | None


class Generator:
    """Makes videos with one checkpoint; of its adapters, the one in use is loaded.

    Args:
      path: folder of the checkpoint; None: the small model of the package.
    """

    def __init__(self, path: Path | None = None):
        self._path = path
        self._pipelines: dict[str, Pipeline] = {}
        self._facts: Facts | None = None

    def describe(self) -> dict[str, Any]:
        """What the page needs to know; also where there is no model, which then says why."""
        try:
            facts, reason = self.facts(), None
        except (ValueError, OSError) as error:
            grid = Grid.of(DiTConfig(), VAEConfig())
            facts, reason = Facts(SamplingConfig(), grid, (), None), str(error)
        sampling = facts.sampling
        return {
            "available": reason is None,
            "reason": reason,
            "name": self._path.name if self._path else "the package's small model",
            "packaged": self._path is None,
            "adapters": list(facts.adapters),
            "adapter_titles": {name: ADAPTERS[name].title for name in facts.adapters},
            "words": facts.words and list(facts.words),
            "measures": is_of_sprites(facts.words),
            "map_kind": sampling.map_kind,
            "height": sampling.height,
            "width": sampling.width,
            "frames": sampling.num_frames,
            "fps": sampling.fps,
            "steps": sampling.num_inference_steps,
            "max_steps": 8 if sampling.sampler == "few_step" else 1000,
            "sampler": sampling.sampler,
            "guidance": sampling.guidance_scale if sampling.sampler != "few_step" else None,
            "grid": dataclasses.asdict(facts.grid),
        }

    def facts(self) -> Facts:
        """Reads the checkpoint's configuration, once.

        Raises:
          UserError: it is no checkpoint, or none comes with the package.
        """
        if self._facts is None:
            from flashmotion_jax.checkpoints.components import open_checkpoint
            from flashmotion_jax.inference.pipeline import shipped_model

            path = self._path or shipped_model()
            config = open_checkpoint(path).config
            there = tuple(kind for kind in ADAPTERS if (path / "adapters" / kind).is_dir())
            grid = Grid.of(config.dit, config.vae)
            self._facts = Facts(config.sampling, grid, there, _words(path))
        return self._facts

    def request(self, settings: dict[str, Any], image: Path | None, trajectory: Any) -> Request:
        """Checks what a user asks for.

        Args:
          settings: from `read_settings`.
          image: first frame; None: text-to-video.
          trajectory: what `load_maps` takes; None without an adapter.

        Raises:
          UserError: something does not fit.
        """
        height, width = settings["size"] or (None, None)
        options = {
            "num_inference_steps": settings["steps"],
            "height": height,
            "width": width,
            "num_frames": settings["frames"],
            "guidance_scale": settings["guidance"],
            "map_kind": settings["map_kind"],
        }
        return self._pipeline(settings["adapter"]).request(
            image,
            settings["prompt"],
            trajectory if settings["adapter"] != "none" else None,
            settings["seed"],
            adapter_scale=settings["adapter_scale"],
            **options,
        )

    def run(self, adapter: str, request: Request, progress: Progress) -> np.ndarray:
        """Makes a video, uint8 [F, H, W, 3]; what `progress` raises cancels it."""
        # Another adapter's pipeline holds weights of its own: only one is kept.
        pipeline = self._pipeline(adapter)
        self._pipelines = {adapter: pipeline}
        return pipeline.run(request, progress)[0]

    def _pipeline(self, adapter: str) -> Pipeline:
        pipeline = self._pipelines.get(adapter)
        if pipeline is None:
            from flashmotion_jax.inference.pipeline import Pipeline

            pipeline = Pipeline.from_pretrained(self._path, adapter)
            self._pipelines[adapter] = pipeline
        return pipeline


def read_settings(fields: dict[str, str], adapters: tuple[str, ...]) -> dict[str, Any]:
    """The choices of a form, typed.

    Args:
      fields: text; what is missing or empty is the model's default.
      adapters: of the checkpoint; the first is the default.

    Raises:
      UserError: a value is of another type, or an unknown adapter.
    """
    settings: dict[str, Any] = {"prompt": fields.get("prompt", ""), "size": None}
    for names, convert, expected in ((_WHOLE, int, "a whole number"), (_REAL, float, "a number")):
        for name in names:
            text = fields.get(name, "").strip()
            try:
                settings[name] = convert(text) if text else None
            except ValueError:
                raise UserError(f"{name}={text!r}; expected {expected}") from None
    if text := fields.get("size", "").strip():
        sides = text.lower().split("x")
        if len(sides) != 2 or not all(side.isdecimal() for side in sides):
            raise UserError(f"size={text!r}; expected HxW, for instance 704x1280")
        settings["size"] = (int(sides[0]), int(sides[1]))
    settings["seed"] = settings["seed"] or 0
    if settings["adapter_scale"] is None:
        settings["adapter_scale"] = 1.0
    settings["map_kind"] = fields.get("map_kind", "").strip() or None
    adapter = fields.get("adapter", "").strip() or (adapters[0] if adapters else "none")
    if adapter not in (*adapters, "none"):
        raise UserError(f"adapter={adapter!r}; expected {', '.join([*adapters, 'none'])}")
    return settings | {"adapter": adapter}


def is_of_sprites(words: tuple[str, ...] | None) -> bool:
    """Whether a model speaks the words of Sprites, whose objects are found by their colors."""
    return words is not None and set(VOCABULARY) <= set(words)


def _words(path: Path) -> tuple[str, ...] | None:
    """All words a model knows, if it knows whole words only."""
    model = json.loads((path / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    if model.get("type") != "WordLevel":
        return None
    return tuple(sorted(word for word in model["vocab"] if word.isalpha()))
