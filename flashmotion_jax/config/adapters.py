"""The table of trajectory adapters, with a row for each kind.

This module imports no jax, so that command lines can list the kinds in their help.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from flashmotion_jax.config.checks import require, require_sizes


class KnownFrames(NamedTuple):
    """How the latent frames on which a trajectory is known are drawn for a video.

    Their number is uniform in 1..T, and their positions are drawn without replacement.

    Attributes:
      first: Probability that the first one is among them.
      none: Probability that there are none.
    """

    first: float
    none: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Configuration of a trajectory adapter; each kind has a subclass."""

    @property
    def known_frames(self) -> KnownFrames | None:
        """How training draws the frames on which it is given the trajectory; None: it is all."""
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetAdapterConfig(AdapterConfig):
    """Configuration of the light adapter: 2-D residual blocks on the trajectory latents alone.

    The defaults are ours; the others are what published files may have, as the paper does not say.

    Raises:
      UserError: A size is below 1, `norm` is unknown, the kernel of the stem is even, or the width
        is no multiple of the number of groups.
    """

    # The paper reports 5.02 B parameters for generator and adapter together, leaving 15 to 25 M
    # for the adapter. Two 3 x 3 convolutions of width 128 per block have 20.8 M; widths 64 and 192
    # would fall outside that range.
    width: int = 128
    # "group" normalizes each latent frame, "group_video" all frames together, as a norm between 3-D
    # convolutions does.
    norm: Literal["rms", "group", "group_video"] = "rms"
    num_groups: int = 32  # of "group" and "group_video"
    stem_kernel: int = 1
    # A strided stem is a convolution of the latents, whose stride is the size of a patch. Others
    # see the patches of the DiT, whose pixels are folded into channels.
    stem_strided: bool = False

    def __post_init__(self) -> None:
        require_sizes(self)
        require(
            self.norm in ("rms", "group", "group_video"),
            f"norm={self.norm!r} is unknown; use rms, group or group_video",
        )
        require(
            self.norm == "rms" or self.width % self.num_groups == 0,
            f"num_groups={self.num_groups}; expected a divisor of width={self.width}",
        )
        require(
            self.stem_kernel % 2 == 1, f"stem_kernel={self.stem_kernel}; expected an odd number"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlNetConfig(AdapterConfig):
    """Configuration of the heavy adapter: a copy of the DiT with a zero projection per block."""

    # The paper does not say. MagicMotion, by the same authors, concatenates both along channels, in
    # this order.
    input: Literal["latents+trajectory", "trajectory+latents", "trajectory"] = "latents+trajectory"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseCtrlConfig(AdapterConfig):
    """Configuration of the sparse adapter: a copy of the DiT that knows some frames of maps.

    The paper does not say how the frames are drawn in training.

    Raises:
      UserError: A value is no probability.
    """

    first_known: float = 0.5  # probability that the first frame is known, the others being any
    none_known: float = 0.1  # probability that no frame is

    def __post_init__(self) -> None:
        for name in ("first_known", "none_known"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name}={value}; expected a probability, from 0 to 1")

    @property
    def known_frames(self) -> KnownFrames:
        """See `AdapterConfig`."""
        return KnownFrames(self.first_known, self.none_known)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """How an adapter that copies the DiT is trained: all of its weights, or a LoRA of the blocks.

    Raises:
      UserError: A value is below 0, or there is an alpha without a rank.
    """

    rank: int = 0  # 0 trains all weights
    alpha: float = 0.0  # the LoRA is multiplied with alpha / rank; 0 is an alpha of `rank`

    def __post_init__(self) -> None:
        require(self.rank >= 0, f"rank={self.rank}; expected at least 1, or 0 for no LoRA")
        require(
            0 <= self.alpha < math.inf and (self.rank > 0 or self.alpha == 0),
            f"alpha={self.alpha} with rank={self.rank}; expected a positive number with a rank",
        )

    @property
    def factor(self) -> float:
        """What the LoRA is multiplied with."""
        return self.alpha / self.rank if self.alpha else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlNetLoRAConfig(ControlNetConfig):
    """Configuration of a ControlNet whose blocks are those of a frozen model and a LoRA of them.

    Raises:
      UserError: The rank is below 1.
    """

    rank: int = 32
    factor: float = 1.0  # alpha / rank
    base: str = ""  # digest of the weights that it is a LoRA of

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank={self.rank}; expected at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterKind:
    """A kind of adapter: a row of `ADAPTERS`.

    Attributes:
      title: Displayed name.
      config: Class of the configuration; its defaults are the published values.
      module: Import path `package.module:Class` of the `nnx.Module`, which is imported on demand;
        see `models.adapters.Adapter` for its methods.
      copies_dit: Whether training initializes it with `module.copy_from_dit(dit)` instead of the
        initial values of its layers.
      groups: Path prefix of its parameters -> factor of the learning rate, see `OptimizerConfig`.
        The norm of each group's gradient is logged.
    """

    title: str
    config: type[AdapterConfig]
    module: str
    copies_dit: bool
    groups: Mapping[str, float]


#: Name on the command line and in checkpoints (`adapters/<name>`) -> the kind.
#: The names of its parameters in PyTorch files are in `converters/adapters.py`.
ADAPTERS: dict[str, AdapterKind] = {
    "resnet": AdapterKind(
        title="ResNet",
        config=ResNetAdapterConfig,
        module="flashmotion_jax.models.adapters.resnet:ResNetAdapter",
        copies_dit=False,
        groups={"stem": 1.0, "blocks": 1.0, "blocks.projection": 1.0},
    ),
    "controlnet": AdapterKind(
        title="ControlNet",
        config=ControlNetConfig,
        module="flashmotion_jax.models.adapters.controlnet:ControlNet",
        copies_dit=True,
        groups={"": 1.0, "blocks": 1.0, "projections": 1.0},
    ),
    "sparsectrl": AdapterKind(
        title="SparseCtrl",
        config=SparseCtrlConfig,
        module="flashmotion_jax.models.adapters.sparsectrl:SparseCtrl",
        copies_dit=True,
        groups={"": 1.0, "blocks": 1.0, "projections": 1.0},
    ),
}

#: The same for adapters that are trained as LoRAs. A checkpoint has them beside the adapter that
#: they make, whose name is in front of `_lora`, and only that one is sampled.
LORAS: dict[str, AdapterKind] = {
    "controlnet_lora": AdapterKind(
        title="LoRA of a ControlNet",
        config=ControlNetLoRAConfig,
        module="flashmotion_jax.models.adapters.controlnet:ControlNetLoRA",
        copies_dit=True,
        groups=ADAPTERS["controlnet"].groups,
    ),
}

#: The default kind.
DEFAULT_ADAPTER = "resnet"


def adapter_kind(name: str) -> AdapterKind:
    """Returns the row of a kind.

    Raises:
      UserError: The kind is unknown.
    """
    require(name in ADAPTERS, f"adapter {name!r} is unknown; expected one of {', '.join(ADAPTERS)}")
    return ADAPTERS[name]


def sparse_adapters() -> tuple[str, ...]:
    """Returns the names of the kinds that are given the trajectory on some frames."""
    return tuple(name for name, kind in ADAPTERS.items() if kind.config().known_frames)


def require_lora(lora: LoRAConfig, name: str) -> None:
    """Checks that adapters of a kind can be trained as LoRAs, if that is asked for.

    Raises:
      UserError: They cannot.
    """
    able = [kind.removesuffix("_lora") for kind in LORAS]
    require(
        not lora.rank or name in able,
        f"lora.rank={lora.rank}: the adapter {name!r} has no blocks of the DiT; expected 0, or the "
        f"adapter {' or '.join(able)}",
    )


def adapter_name(config: AdapterConfig) -> str:
    """Returns the name of the kind of a configuration."""
    return next(name for name, kind in ADAPTERS.items() if kind.config is type(config))
