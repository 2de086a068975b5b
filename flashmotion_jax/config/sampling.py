"""How a checkpoint is sampled, stored with its weights in `model.json`.

Models were trained under conventions that their files do not state: the timesteps that they are
told, the noise levels of a sampler, how an image is brought to their size. Each is a named choice
here, and `CONVENTIONS` holds those of the published models.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from flashmotion_jax.config import wan22
from flashmotion_jax.config.checks import require

Sampler = Literal["few_step", "unipc", "dpm++", "euler"]
"""The few-step sampler, or a solver for a model that is not distilled."""

SolverGrid = Literal["wan", "diffusers"]
"""Noise levels of a solver before the shift: see `diffusion.samplers.multi_step_sigmas`."""

TimestepRounding = Literal["none", "integer", "bfloat16"]
"""Timesteps that the model is told: exact, truncated to whole numbers, or rounded to bfloat16 and
then truncated. Noise levels stay exact."""

SizeFrom = Literal["image", "model"]
"""Size of a video: the model's area in the image's aspect ratio, or its height and width."""

Resize = Literal["crop", "stretch"]
"""How pictures reach the video's size: resized to cover it and center-cropped, or stretched."""

MapColors = Literal["palette", "image"]
"""Colors of the objects in trajectory maps: MagicData's, by id, or those of the first frame."""

MapKind = Literal["box", "filled_box", "mask", "points"]
"""What trajectory maps show after frame 0: see `trajectory.render`."""

#: Keys in files written before December 2026 -> their names since.
RENAMED_KEYS = {"num_steps": "solver_steps", "maps": "map_kind"}
#: What files meant that were written before a choice had a name, where it differs from the default.
_BEFORE = {"solver_grid": "diffusers"}

_NAMED: Mapping[str, object] = {
    "sampler": Sampler,
    "solver_grid": SolverGrid,
    "timestep_rounding": TimestepRounding,
    "size_from": SizeFrom,
    "resize": Resize,
    "map_kind": MapKind,
    "map_colors": MapColors,
}


def _require_known(config: Any) -> None:
    """Raises `UserError` unless every named choice of a dataclass has a known value."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        known = get_args(_NAMED.get(field.name))
        require(
            not known or value in known,
            f"{field.name}={value!r} is unknown; use one of {', '.join(known)}",
        )


_TURBO: Mapping[str, Any] = {
    "sampler": "few_step",
    "warp_denoising_steps": False,
    "timestep_rounding": "bfloat16",
    "size_from": "model",
    "resize": "stretch",
}

CONVENTIONS: Mapping[str, Mapping[str, Any]] = {
    # Turbo's training code stretches images to 704 x 1280, the only size that it knows, and tells
    # the models 1000, 936, 832, 624: the warped grid in bfloat16, as whole numbers.
    "flashmotion": {**_TURBO, "warp_denoising_steps": True},
    # Turbo was distilled on that grid, too, but its inference script feeds the list as it is, of
    # which bfloat16 makes 1000, 752, 500, 250.
    "turbo": _TURBO,
    "wan22": {"sampler": "unipc", "solver_grid": "wan", "size_from": "image", "resize": "crop"},
}
"""Conventions of published models: fields of `SamplingConfig`.

Sources: Wan2.2-TI2V-5B-Turbo, `pipeline/` and `wan2.2_fewstep.py`, for the first two: the code of
FlashMotion itself is not public; Wan2.2, `wan/textimage2video.py`, for the last.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewStepConfig:
    """The denoising steps of a few-step generator.

    Attributes:
      denoising_steps: Timesteps, decreasing, in (0, 1000].
      warp_denoising_steps: Whether `denoising_steps` are shifted like the noise levels.
      shift: Shift of the noise levels, equation (4) of `diffusion.flow`.
      timestep_rounding: Timesteps that the models are told.

    Raises:
      UserError: `timestep_rounding` is unknown.
    """

    denoising_steps: tuple[int, ...] = (1000, 750, 500, 250)
    warp_denoising_steps: bool = True
    shift: float = 5.0
    timestep_rounding: TimestepRounding = "none"

    def __post_init__(self) -> None:
        _require_known(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Sampling defaults of a checkpoint, stored with its weights; callers can override them.

    Attributes:
      sampler: The few-step sampler, or a solver for a model that is not distilled.
      denoising_steps: Timesteps of "few_step", decreasing, in (0, 1000].
      warp_denoising_steps: Whether `denoising_steps` are shifted like the noise levels.
      timestep_rounding: Timesteps that "few_step" tells the model. Solvers have their own rule.
      solver_steps: Number of steps of the solvers.
      solver_grid: Noise levels of the solvers.
      shift: Shift of the noise levels, equation (4) of `diffusion.flow`.
      guidance_scale: Classifier-free guidance of the solvers; "few_step" has none.
      negative_prompt: Prompt that guidance leads away from.
      height: In pixels.
      width: In pixels.
      size_from: "model" makes videos of `height` and `width`, "image" of the same area in the
        aspect ratio of the image.
      resize: How the image, and trajectory maps with it, are brought to the size of the video.
      num_frames: 4 n + 1.
      fps: Frames per second of the written video.
      map_kind: Kind of trajectory map that the adapters were trained on.
      map_colors: Colors of the maps that the adapters were trained on.
      point_sigma: Standard deviation of the points of maps, as a fraction of the shorter side.
      knows_key_frames: Whether the generator was trained with images of later frames.
      needs_image: Whether the model makes videos only from an image, not from text alone.

    Raises:
      UserError: A named choice is unknown, or a value is out of range.
    """

    sampler: Sampler = "few_step"
    denoising_steps: tuple[int, ...] = (1000, 750, 500, 250)
    warp_denoising_steps: bool = True
    timestep_rounding: TimestepRounding = "none"
    solver_steps: int = 50
    solver_grid: SolverGrid = "wan"
    shift: float = 5.0
    guidance_scale: float = 5.0
    negative_prompt: str = wan22.NEGATIVE_PROMPT
    height: int = 704
    width: int = 1280
    size_from: SizeFrom = "image"
    resize: Resize = "crop"
    num_frames: int = 121
    fps: int = 24
    map_kind: MapKind = "box"
    map_colors: MapColors = "palette"
    point_sigma: float = 0.02
    knows_key_frames: bool = False
    needs_image: bool = False

    def __post_init__(self) -> None:
        _require_known(self)
        require(
            0 < self.point_sigma <= 1,
            f"point_sigma={self.point_sigma}; expected a fraction of the shorter side, for "
            "instance 0.02",
        )
        require(
            1 <= self.guidance_scale < math.inf,
            f"guidance_scale={self.guidance_scale}; expected a number of at least 1, where 1 is no "
            "guidance",
        )
        require(
            0 < self.shift < math.inf,
            f"shift={self.shift}; expected a positive number, 5 for Wan2.2-TI2V-5B",
        )

    @property
    def few_step(self) -> FewStepConfig:
        """The settings of the few-step sampler."""
        names = [field.name for field in dataclasses.fields(FewStepConfig)]
        return FewStepConfig(**{name: getattr(self, name) for name in names})

    @property
    def is_guided(self) -> bool:
        """Whether each step also evaluates the model on the negative prompt."""
        return self.sampler != "few_step" and self.guidance_scale != 1

    @property
    def num_inference_steps(self) -> int:
        """Number of denoising steps of the sampler in use."""
        return len(self.denoising_steps) if self.sampler == "few_step" else self.solver_steps

    def with_conventions(self, name: str) -> SamplingConfig:
        """Returns a copy with the conventions of a published model, a name in `CONVENTIONS`."""
        return dataclasses.replace(self, **CONVENTIONS[name])

    def __str__(self) -> str:
        """The conventions in a line, for people."""
        shift = f"shift {self.shift:g}"
        if self.sampler == "few_step":
            grid = f"warped, {shift}" if self.warp_denoising_steps else "raw"
            steps = f"{list(self.denoising_steps)} ({grid}; rounding {self.timestep_rounding})"
        else:
            guidance = f"guidance {self.guidance_scale:g}"
            steps = f"{self.solver_steps} steps ({self.solver_grid} grid, {shift}, {guidance})"
        size = "size" if self.size_from == "model" else "area, in the image's aspect ratio"
        return (
            f"{self.sampler} {steps}; {self.num_frames} frames of {self.height} x {self.width} "
            f"(height x width, {size}); images: {self.resize}; maps: {self.map_kind}"
        )

    def with_num_inference_steps(self, num_inference_steps: int) -> SamplingConfig:
        """Returns a copy with another number of steps, evenly spaced for the few-step sampler.

        Raises:
          UserError: the number is below 1, or above 8 for the few-step sampler.
        """
        steps = num_inference_steps
        if self.sampler != "few_step":
            require(steps >= 1, f"num_inference_steps={steps}; expected at least 1")
            return dataclasses.replace(self, solver_steps=steps)
        require(
            1 <= steps <= 8,
            f"num_inference_steps={steps}; the few-step sampler takes 1 to 8 steps; use the unipc "
            "sampler for more",
        )
        levels = tuple(round(1000 * (steps - i) / steps) for i in range(steps))
        return dataclasses.replace(self, denoising_steps=levels)


def as_current_sampling(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `SamplingConfig` from those of a file of any age."""
    return _BEFORE | {RENAMED_KEYS.get(key, key): value for key, value in values.items()}
