"""The training stages: one file per stage, with its losses and how it is built.

To add a stage: a configuration in `config/runs.py` and in its union `StageConfig`, a file here with
`build(run, config) -> Stage`, and a row in `STAGES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flashmotion_jax.config import (
    AutoencoderConfig,
    DMDConfig,
    FastAdapterConfig,
    FastGeneratorConfig,
    LCMConfig,
    SlowAdapterConfig,
    SlowGeneratorConfig,
    TinyAutoencoderConfig,
    TrainConfig,
)
from flashmotion_jax.training.stage import Stage
from flashmotion_jax.training.stages import (
    autoencoder,
    dmd,
    fast_adapter,
    fast_generator,
    lcm,
    slow_adapter,
    slow_generator,
    tiny_autoencoder,
)

#: Type of a stage's configuration to the function that builds the stage.
STAGES: Mapping[type, Callable[[TrainConfig, Any], Stage]] = {
    AutoencoderConfig: autoencoder.build,
    TinyAutoencoderConfig: tiny_autoencoder.build,
    SlowGeneratorConfig: slow_generator.build,
    SlowAdapterConfig: slow_adapter.build,
    FastGeneratorConfig: fast_generator.build,
    FastAdapterConfig: fast_adapter.build,
    DMDConfig: dmd.build,
    LCMConfig: lcm.build,
}


def build_stage(run: TrainConfig) -> Stage:
    """Builds the stage of a run; reads the sizes in its checkpoints, but no weights.

    Raises:
      UserError: A checkpoint is missing or does not fit.
    """
    return STAGES[type(run.stage)](run, run.stage)
