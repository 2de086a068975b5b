"""How a model is optimized."""

from __future__ import annotations

import dataclasses
from typing import Literal

from flashmotion_jax.config.checks import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer of one trained model, its learning-rate schedule and its moving average.

    With "muon", Muon updates matrices and convolution kernels, and AdamW all other parameters. Both
    use the same learning rate: Muon's updates are scaled to the usual size of AdamW's.

    Raises:
      UserError: a value out of range.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float
    momentum: float = 0.95  # of Muon
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 10.0  # of the model's whole gradient
    warmup_updates: int = 0  # the learning rate rises linearly from 0
    constant_updates: int = 0  # after the warm-up, before the learning rate decays
    decay: Literal["constant", "cosine", "linear"] = "constant"
    decay_updates: int = 0  # after these, until the learning rate is 0
    accumulate: int = 1  # microbatches per batch; their gradients are averaged
    ema_decay: float = 0.0  # 0 keeps no moving average
    ema_start: int = 0  # step of the run before which the average equals the weights
    #: Dotted prefix of a parameter's path -> factor of its learning rate; the longest prefix wins.
    groups: dict[str, float] = dataclasses.field(default_factory=lambda: {"": 1.0})

    def __post_init__(self) -> None:
        require(self.learning_rate > 0, f"learning_rate={self.learning_rate}; expected above 0")
        require(self.clip_norm > 0, f"clip_norm={self.clip_norm}; expected above 0")
        require(self.accumulate >= 1, f"accumulate={self.accumulate}; expected at least 1")
        for name in ("momentum", "beta1", "beta2", "ema_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name}={value}; expected at least 0 and below 1")
        require(
            (self.decay == "constant") == (self.decay_updates == 0),
            f"decay={self.decay!r} with decay_updates={self.decay_updates}; expected decay_updates "
            "above 0 with cosine or linear, and 0 with constant",
        )
        require(
            bool(self.groups) and all(factor > 0 for factor in self.groups.values()),
            f"groups={self.groups}; expected factors above 0, for example {{'': 1.0}}",
        )
