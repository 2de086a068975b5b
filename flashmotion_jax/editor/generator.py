"""The model behind the page: its sizes and adapters, checking of requests, generation."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from flashmotion_jax.config import ADAPTERS, DiTConfig, Grid, MapKind, SamplingConfig, VAEConfig
from flashmotion_jax.data.sprites import is_of_sprites
from flashmotion_jax.media.geometry import video_size
from flashmotion_jax.runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from flashmotion_jax.inference.pipeline import Pipeline
    from flashmotion_jax.inference.previews import OnPreview
    from flashmotion_jax.inference.request import Request
    from flashmotion_jax.runtime.progress import Progress

_INTEGERS = ("seed", "num_inference_steps", "height", "width", "num_frames")
_NUMBERS = ("guidance_scale", "adapter_scale")
_MAX_DIGITS = 40


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the configuration of a checkpoint says.

    Attributes:
      sampling: Defaults of its sampling.
      grid: What sizes and lengths must be multiples of.
      adapters: The kinds of adapters it has.
      words: The words its tokenizer knows, or None if it splits words into pieces.
      previews: Whether it can show videos while they are generated: it has a tiny VAE.
      notice: What it knows, where it is little; see `inference.domain`.
    """

    sampling: SamplingConfig
    grid: Grid
    adapters: tuple[str, ...]
    words: tuple[str, ...] | None
    previews: bool = False
    notice: str | None = None


class Generator:
    """Generates videos with one checkpoint, and loads one of its adapters at a time.

    Args:
      path: Folder of the checkpoint; None: the small model of the package.
      weights: Dtype of its weights; see `Pipeline.from_pretrained`.
    """

    def __init__(self, path: Path | None = None, weights: str | None = None):
        self._path, self._weights = path, weights
        self._pipelines: dict[str, Pipeline] = {}
        self._facts: Facts | None = None

    def describe(self) -> dict[str, Any]:
        """Facts for the page, as JSON; without a model, `reason` says why there is none."""
        facts, reason = self._known()
        sampling = facts.sampling
        return {
            "available": reason is None,
            "reason": reason,
            "name": self._path.name if self._path else "the package's small model",
            "packaged": self._path is None,
            "adapters": list(facts.adapters),
            "adapter_titles": {name: ADAPTERS[name].title for name in facts.adapters},
            "words": facts.words and list(facts.words),
            "notice": facts.notice,
            "needs_image": sampling.needs_image,
            "measures": is_of_sprites(facts.words),
            "previews": facts.previews,
            "map_kind": sampling.map_kind,
            "point_sigma": sampling.point_sigma,
            "height": sampling.height,
            "width": sampling.width,
            "resize": sampling.resize,
            "num_frames": sampling.num_frames,
            "fps": sampling.fps,
            "num_inference_steps": sampling.num_inference_steps,
            "max_inference_steps": 8 if sampling.sampler == "few_step" else 1000,
            "sampler": sampling.sampler,
            "guidance_scale": sampling.guidance_scale if sampling.sampler != "few_step" else None,
            "grid": dataclasses.asdict(facts.grid),
        }

    def video_size(self, height: int, width: int) -> tuple[int, int]:
        """The size of the video for an image, without a model that of the published one.

        Raises:
          UserError: No size fits the image.
        """
        facts = self._known()[0]
        return video_size((height, width), facts.sampling, facts.grid)

    def _known(self) -> tuple[Facts, str | None]:
        """What is known of the model, and why there is none."""
        try:
            return self.facts(), None
        except (ValueError, OSError) as error:
            grid = Grid.of(DiTConfig(), VAEConfig())
            return Facts(SamplingConfig(), grid, (), None), str(error)

    def facts(self) -> Facts:
        """Reads the configuration of the checkpoint, once.

        Raises:
          UserError: The folder is not a checkpoint, or the package contains no model.
        """
        if self._facts is None:
            from flashmotion_jax.checkpoints.components import open_checkpoint
            from flashmotion_jax.inference.domain import Domain, shipped_model

            path = self._path or shipped_model()
            checkpoint = open_checkpoint(path)
            config, tokenizer = checkpoint.config, checkpoint.tokenizer
            there = tuple(kind for kind in ADAPTERS if (path / "adapters" / kind).is_dir())
            grid = Grid.of(config.dit, config.vae)
            has_tiny_vae = config.tiny_vae is not None
            notice = Domain(tokenizer).notice
            self._facts = Facts(config.sampling, grid, there, tokenizer.words, has_tiny_vae, notice)
        return self._facts

    def request(self, settings: dict[str, Any], image: Path | None, trajectory: Any) -> Request:
        """Checks the inputs of a video and brings them to arrays.

        Args:
          settings: From `read_settings`.
          image: File of the first frame; None: text-to-video.
          trajectory: Any source of `load_maps`; None without an adapter.

        Raises:
          UserError: An input is damaged, or does not fit the model.
        """
        names = ("num_inference_steps", "height", "width", "num_frames", "guidance_scale")
        options = {name: settings[name] for name in (*names, "adapter_scale")}
        if settings["adapter"] == "none":
            trajectory = None
        return self._pipeline(settings["adapter"]).request(
            image,
            settings["prompt"],
            trajectory,
            settings["seed"],
            map_kind=None if trajectory is None else settings["map_kind"],
            **options,
        )

    def run(
        self, adapter: str, request: Request, progress: Progress, on_preview: OnPreview
    ) -> np.ndarray:
        """Generates a video, uint8 `[F, H, W, 3]`; an exception in `progress` cancels it.

        A model without a tiny VAE makes no previews.
        """
        # Each adapter's pipeline holds its own copy of the weights, so only one is kept.
        pipeline = self._pipeline(adapter)
        self._pipelines = {adapter: pipeline}
        return pipeline.run(request, progress, on_preview if self.facts().previews else None)[0]

    def _pipeline(self, adapter: str) -> Pipeline:
        pipeline = self._pipelines.get(adapter)
        if pipeline is None:
            from flashmotion_jax.inference.pipeline import Pipeline

            pipeline = Pipeline.from_pretrained(self._path, adapter, weights=self._weights)
            self._pipelines[adapter] = pipeline
        return pipeline


def read_settings(fields: dict[str, str], adapters: tuple[str, ...]) -> dict[str, Any]:
    """Parses the settings of a form.

    Args:
      fields: Text; None stands for the model's default where a field is missing or empty.
      adapters: Of the checkpoint; the first is the default.

    Raises:
      UserError: A value has another type, or the adapter is unknown.
    """
    settings: dict[str, Any] = {"prompt": fields.get("prompt", "")}
    types = ((_INTEGERS, int, "a whole number"), (_NUMBERS, float, "a number"))
    for names, convert, expected in types:
        for name in names:
            text = fields.get(name, "").strip()
            try:
                settings[name] = convert(text) if text else None
            except ValueError:
                raise UserError(f"{name}={text!r:.40}; expected {expected}") from None
            if text and (len(text) > _MAX_DIGITS or not math.isfinite(settings[name])):
                raise UserError(f"{name}={text!r:.40}; expected {expected} that is not so large")
    settings["seed"] = settings["seed"] or 0
    if settings["adapter_scale"] is None:
        settings["adapter_scale"] = 1.0
    map_kind = settings["map_kind"] = fields.get("map_kind", "").strip() or None
    if map_kind is not None and map_kind not in get_args(MapKind):
        raise UserError(f"map_kind={map_kind!r:.40}; expected {', '.join(get_args(MapKind))}")
    adapter = fields.get("adapter", "").strip() or (adapters[0] if adapters else "none")
    if adapter not in (*adapters, "none"):
        raise UserError(f"adapter={adapter!r:.40}; expected {', '.join([*adapters, 'none'])}")
    return settings | {"adapter": adapter}
