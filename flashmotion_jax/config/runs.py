"""Runs of `flashmotion cache` and `flashmotion train`: what `configs/` is made of.

Fields marked `_FREE` may differ when a run is resumed; all others decide its numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

from flashmotion_jax.config.adapters import (
    ADAPTERS,
    DEFAULT_ADAPTER,
    AdapterConfig,
    adapter_kind,
)
from flashmotion_jax.config.checks import require
from flashmotion_jax.config.models import CachedMapKind, DiscriminatorConfig

_FREE = {"free": True}


def _checkpoint() -> Any:
    """A checkpoint folder: a run may find it elsewhere, as long as the weights are the same."""
    return dataclasses.field(metadata=_FREE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What `flashmotion cache` reads and how it encodes it."""

    #: A MagicData folder, or Sprites that are drawn as they are read.
    data: Literal["magicdata", "sprites"] = "magicdata"
    data_root: str = "data/MagicData"  # videos/, masks/, boxs/
    csv: str = "MagicData.csv"  # in `data_root`, or a path of its own
    num_clips: int = 100_000  # of "sprites"
    model: str = "checkpoints/wan22"  # its VAE and text encoder
    output: str = "data/MagicData-cache"
    num_frames: int = 121  # the first of each video; shorter ones are left out
    height: int = 704
    width: int = 1280
    resize: Literal["stretch", "crop"] = "stretch"  # the paper's loader stretches
    videos_per_shard: int = 32
    dtype: Literal["float16", "float32"] = "float16"  # of the stored latents and embeddings


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis of the mesh; their product is the number of devices used."""

    data: int = 1  # copies of the weights, each with a part of the batch
    fsdp: int = 1  # weights are split over it, and the batch too
    context: int = 1  # of one video's tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer of one player, its moving average and its learning rate over time.

    With "muon", matrices and kernels of convolutions are updated by Muon and all other parameters
    by AdamW, at the same learning rate: both change a weight by about a fifth of it an update.

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
    clip_norm: float = 10.0  # of the player's whole gradient
    warmup_updates: int = 0  # the rate rises linearly from 0
    decay: Literal["constant", "cosine", "linear"] = "constant"
    decay_updates: int = 0  # after the warm-up, until the rate is 0; of cosine and linear
    accumulate: int = 1  # parts that a batch is taken in, one after the other
    ema_decay: float = 0.0  # 0 keeps no moving average
    ema_start: int = 0  # step of the run until which the average is the weights themselves
    #: Dotted prefix of parameters' paths -> factor of the learning rate; the longest one counts.
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
            f"decay={self.decay!r} with decay_updates={self.decay_updates}; give decay_updates "
            "above 0 with cosine or linear, and none with constant",
        )
        require(
            bool(self.groups) and all(factor > 0 for factor in self.groups.values()),
            f"groups={self.groups}; expected factors above 0, for instance {{'': 1.0}}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimestepsConfig:
    """Training timesteps: uniform integers in [0, 1000), shifted, then clamped to [low, high]."""

    shift: float = 5.0
    low: float = 0.0
    high: float = 1000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewStepConfig:
    """The student's denoising steps, as in `SamplingConfig`."""

    denoising_steps: tuple[int, ...] = (1000, 750, 500, 250)
    warp_denoising_steps: bool = True
    shift: float = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """Weight of a loss over the run, `slope * step + offset` (equation 7)."""

    slope: float = 0.25e-3
    offset: float = 0.0  # the paper's section 4.1 prints a stray 0.1: perhaps an offset


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Before the stages: a video autoencoder, on pixels.

    Raises:
      UserError: a share of maps that is none, windows that do not fit the videos, or a decay or
        an average that would move a frozen encoder.
    """

    autoencoder: str = _checkpoint()  # checkpoint folder
    #: A MagicData folder, or Sprites that are drawn as they are read.
    data: Literal["magicdata", "sprites"] = "magicdata"
    data_root: str = dataclasses.field(default="data/MagicData", metadata=_FREE)
    csv: str = dataclasses.field(default="MagicData.csv", metadata=_FREE)
    num_clips: int = 100_000  # of "sprites"
    num_frames: int = 121  # of a video; training takes windows of it
    height: int = 704
    width: int = 1280
    resize: Literal["stretch", "crop"] = "stretch"
    window: int = 17  # frames of a window, 4 n + 1
    windows: int = 1  # that are drawn of each video
    maps: float = 0.3  # share of the windows that are of trajectory maps, which it encodes too
    decoder_only: bool = False  # the encoder and so the latents of a cache stay as they are
    optimizer: OptimizerConfig
    prior_scale: float = 1e-6  # weight of the KL divergence from a unit Gaussian

    def __post_init__(self) -> None:
        require(0 <= self.maps <= 1, f"maps={self.maps}; expected 0 to 1")
        require(self.windows >= 1, f"windows={self.windows}; expected at least 1")
        require(
            1 <= self.window <= self.num_frames,
            f"window={self.window}; expected 1 to num_frames={self.num_frames}",
        )
        moving = [
            f"{name}={value}"
            for name in ("weight_decay", "ema_decay")
            if (value := getattr(self.optimizer, name))
        ]
        require(
            not (self.decoder_only and moving),
            f"decoder_only with {' and '.join(moving)}, which moves the encoder too; expected 0",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlowGeneratorConfig:
    """Before the stages: a multi-step generator, by the diffusion loss."""

    slow_generator: str = _checkpoint()  # checkpoint folder, perhaps of fresh weights
    optimizer: OptimizerConfig
    timesteps: TimestepsConfig = dataclasses.field(default_factory=TimestepsConfig)
    text_dropout: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlowAdapterConfig:
    """Stage 1: an adapter on the frozen SlowGenerator, by the diffusion loss.

    The kind of adapter says whether it starts as a copy of the generator's blocks or from scratch.
    """

    slow_generator: str = _checkpoint()  # checkpoint folder
    adapter: AdapterConfig = dataclasses.field(default_factory=ADAPTERS[DEFAULT_ADAPTER].config)
    #: Checkpoint folder whose adapter is trained on; empty starts anew.
    start_from: str = dataclasses.field(default="", metadata=_FREE)
    optimizer: OptimizerConfig
    timesteps: TimestepsConfig = dataclasses.field(default_factory=TimestepsConfig)
    text_dropout: float = 0.1  # open in the paper; guidance needs some


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """Distribution matching (DMD): how the scores are taken, and who plays when."""

    student: FewStepConfig = dataclasses.field(default_factory=FewStepConfig)
    # real = cond + w (cond - uncond): 6 here is what samplers call 7.
    real_guidance: float = 6.0
    timesteps: TimestepsConfig = dataclasses.field(
        default_factory=lambda: TimestepsConfig(low=20.0, high=980.0)
    )
    student_every: int = 5  # steps; the fake score plays in every one
    student_start: int = 0  # steps in which the fake score plays alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastGeneratorConfig:
    """Stage 2: the generator distilled to a few steps by distribution matching.

    Student, real and fake score all start as the slow generator.
    """

    slow_generator: str = _checkpoint()
    optimizer: OptimizerConfig
    fake_score_optimizer: OptimizerConfig
    matching: MatchingConfig = dataclasses.field(default_factory=MatchingConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastAdapterConfig:
    """Stage 3: the adapter fine-tuned on the FastGenerator, diffusion and adversarial loss.

    The ablations of the paper's Table 2 and 3 are values of these fields.
    """

    slow_generator: str = _checkpoint()  # checkpoint folder: the discriminator's frozen backbone
    fast_generator: str = _checkpoint()  # checkpoint folder
    slow_adapter: str = _checkpoint()  # checkpoint folder whose adapter is fine-tuned
    adapter: str  # its kind, a name of `ADAPTERS`
    optimizer: OptimizerConfig
    discriminator_optimizer: OptimizerConfig
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    student: FewStepConfig = dataclasses.field(default_factory=FewStepConfig)
    # Open in the paper: noised real latents fit the diffusion loss, which compares with them;
    # "sampler" runs the few-step sampler from noise up to the drawn step instead.
    fake_from: Literal["data", "sampler"] = "data"
    adversarial: bool = True  # False trains by the diffusion loss alone, without a discriminator
    diffusion_scale: ScaleConfig = dataclasses.field(default_factory=ScaleConfig)
    # Open in the paper, which says 0..1000: clamped or shifted as in DMD is the alternative.
    timesteps: TimestepsConfig = dataclasses.field(
        default_factory=lambda: TimestepsConfig(shift=1.0)
    )
    adapter_every: int = 5  # steps; the discriminator plays in every one
    adapter_start: int = 0  # steps in which the discriminator plays alone
    real_penalty: float = 0.0  # weight of the approximate R1 penalty of APT
    fake_penalty: float = 0.0  # likewise R2
    penalty_noise: float = 0.01  # its perturbation of the latents
    separate_gradients: bool = True  # norm of each loss's gradient: one backward pass more

    def __post_init__(self) -> None:
        adapter_kind(self.adapter)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchedAdapterConfig:
    """Baseline DMD of the paper's Table 1: an adapter by distribution matching.

    Real score: SlowGenerator and SlowAdapter, frozen. Fake score: the same with an adapter that is
    trained. Open in the paper; training the fake score's generator too would take 5 B more.
    """

    slow_generator: str = _checkpoint()
    fast_generator: str = _checkpoint()
    slow_adapter: str = _checkpoint()
    adapter: str  # its kind, a name of `ADAPTERS`
    optimizer: OptimizerConfig
    fake_score_optimizer: OptimizerConfig
    matching: MatchingConfig = dataclasses.field(default_factory=MatchingConfig)

    def __post_init__(self) -> None:
        adapter_kind(self.adapter)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistentAdapterConfig:
    """Baseline LCM of the paper's Table 1: an adapter by consistency with the guided teacher."""

    slow_generator: str = _checkpoint()
    fast_generator: str = _checkpoint()
    slow_adapter: str = _checkpoint()
    adapter: str  # its kind, a name of `ADAPTERS`
    optimizer: OptimizerConfig  # its moving average gives the targets
    num_timesteps: int = 50  # of the teacher's grid; neighbours are made consistent
    shift: float = 5.0
    guidance_scale: float = 5.0  # of the teacher, as samplers call it
    student: FewStepConfig = dataclasses.field(default_factory=FewStepConfig)
    adapter_every: int = 5  # steps, so that a run has as many updates as one of stage 3

    def __post_init__(self) -> None:
        adapter_kind(self.adapter)
        require(
            self.optimizer.ema_decay > 0,
            "optimizer.ema_decay=0; consistency training takes its targets from the average: "
            "give a decay, for instance 0.95",
        )


StageConfig = (
    AutoencoderConfig
    | SlowGeneratorConfig
    | SlowAdapterConfig
    | FastGeneratorConfig
    | FastAdapterConfig
    | MatchedAdapterConfig
    | ConsistentAdapterConfig
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run of `flashmotion train`.

    Raises:
      UserError: a value out of range.
    """

    stage: StageConfig
    output: str = dataclasses.field(metadata=_FREE)  # folder of the run
    #: Folder of `flashmotion cache`.
    cache: str = dataclasses.field(default="data/MagicData-cache", metadata=_FREE)
    map_kind: CachedMapKind = "box"
    steps: int = dataclasses.field(metadata=_FREE)
    batch_size: int = 16  # videos a step, over all devices
    seed: int = 0
    dtype: Literal["bfloat16", "float32"] = "bfloat16"  # of matmuls; masters are float32
    remat: Literal["none", "full", "dots"] = dataclasses.field(default="full", metadata=_FREE)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig, metadata=_FREE)
    num_threads: int = dataclasses.field(default=4, metadata=_FREE)  # that read the cache
    log_every: int = dataclasses.field(default=10, metadata=_FREE)  # steps
    save_every: int = dataclasses.field(default=200, metadata=_FREE)  # steps
    keep: int = dataclasses.field(default=2, metadata=_FREE)  # latest checkpoints, two or more
    keep_best: str = dataclasses.field(default="", metadata=_FREE)  # a metric: keep its minimum too
    sample_every: int = dataclasses.field(default=500, metadata=_FREE)  # steps; 0 for none
    num_samples: int = dataclasses.field(default=1, metadata=_FREE)  # videos each time

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "num_threads", "log_every", "save_every"):
            value = getattr(self, name)
            require(value >= 1, f"{name}={value}; expected at least 1")
        require(
            self.keep >= 2, f"keep={self.keep}; expected at least 2, for the newest may be damaged"
        )


def differences(old: dict[str, Any], new: TrainConfig) -> list[str]:
    """Where a run's settings differ from another's in what decides its numbers.

    Args:
      old: `to_dict` of a `TrainConfig`, perhaps read back from JSON.
      new: the other one.

    Returns:
      One line a field, `key: old -> new`.
    """
    free = set(_free(new))
    old_leaves, new_leaves = (
        {key: value for key, value in _leaves(values) if key not in free}
        for values in (old, dataclasses.asdict(new))
    )
    return [
        f"{key}: {old_leaves.get(key, 'nothing')} -> {new_leaves.get(key, 'nothing')}"
        for key in sorted(old_leaves.keys() | new_leaves.keys())
        if old_leaves.get(key) != new_leaves.get(key)
    ]


def _free(config: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            inner = f"{prefix}{field.name}."
            names = [name for name, _ in _leaves(dataclasses.asdict(value), inner)]  # pyrefly: ignore
            yield from names if field.metadata.get("free") else _free(value, inner)
        elif field.metadata.get("free"):
            yield prefix + field.name


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value
