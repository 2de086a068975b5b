"""FlashMotion in JAX: four-step, trajectory-controlled video generation, and its training.

Public names are imported when first used, so that `import flashmotion_jax` is fast.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flashmotion_jax.checkpoints.models import Models, load_models
    from flashmotion_jax.config import SamplingConfig
    from flashmotion_jax.evaluation.evaluate import EvaluateConfig, evaluate
    from flashmotion_jax.inference.pipeline import Pipeline
    from flashmotion_jax.media.videos import read_video, write_video
    from flashmotion_jax.trajectory import Keyframe, TrackedObject, Trajectory, load_maps

__version__ = "0.2.0.dev0"

# In a checkout, `configs` and `converters` are folders next to the package. A wheel installs them
# as `flashmotion_jax.configs` and `flashmotion_jax.converters`, and so they are imported here as
# well.
_CHECKOUT = Path(__file__).parents[1]
if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "converters").is_dir():
    __path__.append(str(_CHECKOUT))

__all__ = [
    "EvaluateConfig",
    "Keyframe",
    "Models",
    "Pipeline",
    "SamplingConfig",
    "TrackedObject",
    "Trajectory",
    "evaluate",
    "load_maps",
    "load_models",
    "read_video",
    "write_video",
]

_MODULES = {
    "EvaluateConfig": "evaluation.evaluate",
    "Keyframe": "trajectory",
    "Models": "checkpoints.models",
    "Pipeline": "inference.pipeline",
    "SamplingConfig": "config",
    "TrackedObject": "trajectory",
    "Trajectory": "trajectory",
    "evaluate": "evaluation.evaluate",
    "load_maps": "trajectory",
    "load_models": "checkpoints.models",
    "read_video": "media.videos",
    "write_video": "media.videos",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
