"""Configurations of `flashmotion cache` and `flashmotion train`, built by the files of `configs/`.

Fields marked `_FREE` may change when a run is resumed; all others determine its numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from flashmotion_jax.config.adapters import (
    ADAPTERS,
    DEFAULT_ADAPTER,
    AdapterConfig,
    LoRAConfig,
    adapter_kind,
    adapter_name,
    require_lora,
)
from flashmotion_jax.config.checks import require
from flashmotion_jax.config.models import (
    CachedMapKind,
    DiscriminatorConfig,
    PatchDiscriminatorConfig,
    TinyVAEConfig,
)
from flashmotion_jax.config.optimizer import OptimizerConfig
from flashmotion_jax.config.sampling import FewStepConfig, Resize

LossWeight = Literal["uniform", "bell"]
"""Weights of timesteps in the flow-matching loss: equal, or those of `timesteps.bell_weight`."""

_FREE = {"free": True}


def _checkpoint() -> Any:
    """A checkpoint folder; it may move between resumptions, as long as its weights are the same."""
    return dataclasses.field(metadata=_FREE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """One run of `flashmotion cache`: the data to encode, and how."""

    #: A MagicData folder, or Sprites that are drawn as they are read.
    data: Literal["magicdata", "sprites"] = "magicdata"
    data_root: str = "data/MagicData"  # videos/, masks/, boxs/
    csv: str = "MagicData.csv"  # in `data_root`, or a path of its own
    num_clips: int = 100_000  # of "sprites"
    model: str = "checkpoints/wan22"  # its VAE and text encoder
    output: str = "data/MagicData-cache"
    num_frames: int = 121  # the first frames of each video; shorter videos are rejected
    height: int = 704
    width: int = 1280
    resize: Resize = "stretch"  # as in the paper's data loader
    videos_per_shard: int = 32
    dtype: Literal["float16", "float32"] = "float16"  # of the stored latents and embeddings
    map_kinds: tuple[CachedMapKind, ...] = ("mask", "box")  # trajectory maps, each like a video
    #: Also encodes the maps of frames 0, 4, 8, ... alone, for adapters that know some frames only.
    single_frames: bool = False
    point_sigma: float = 0.02  # of "points", as a fraction of the shorter side


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis of the mesh; their product is the number of devices used."""

    data: int = 1  # replicates the weights, shards the batch
    fsdp: int = 1  # shards the weights and the batch
    context: int = 1  # shards the tokens of each video


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimestepsConfig:
    """Training timesteps: uniform integers in [0, 1000), shifted, then clamped to [low, high]."""

    shift: float = 5.0
    low: float = 0.0
    high: float = 1000.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """The weight lambda of a loss over the run, `slope * step + offset` (equation 7)."""

    slope: float = 0.25e-3
    offset: float = 0.0  # section 4.1 of the paper prints a stray 0.1, perhaps this offset


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelStageConfig:
    """A stage that is trained on pixels: windows of videos and of trajectory maps.

    Raises:
      UserError: A value is out of range.
    """

    autoencoder: str = _checkpoint()  # checkpoint folder
    #: A MagicData folder, or Sprites that are drawn as they are read.
    data: Literal["magicdata", "sprites"] = "magicdata"
    data_root: str = dataclasses.field(default="data/MagicData", metadata=_FREE)
    csv: str = dataclasses.field(default="MagicData.csv", metadata=_FREE)
    num_clips: int = 100_000  # of "sprites"
    num_frames: int = 121  # per video; training draws windows of them
    height: int = 704
    width: int = 1280
    resize: Resize = "stretch"
    window_frames: int = 17  # 4 n + 1
    windows_per_video: int = 1
    map_fraction: float = 0.3  # of the windows: trajectory maps in place of the video
    optimizer: OptimizerConfig

    def __post_init__(self) -> None:
        require(0 <= self.map_fraction <= 1, f"map_fraction={self.map_fraction}; expected 0 to 1")
        require(
            self.windows_per_video >= 1,
            f"windows_per_video={self.windows_per_video}; expected at least 1",
        )
        require(
            1 <= self.window_frames <= self.num_frames,
            f"window_frames={self.window_frames}; expected 1 to num_frames={self.num_frames}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(PixelStageConfig):
    """Before stage 1: a video autoencoder.

    Raises:
      UserError: A value is out of range, or a weight decay or moving average that would change a
        frozen encoder.
    """

    decoder_only: bool = False  # freezes the encoder, and so the latents of an existing cache
    prior_scale: float = 1e-6  # weight of the KL divergence from a unit Gaussian
    adversarial_scale: float = 0.0  # weight of the adversarial loss; 0 trains no discriminator
    discriminator: PatchDiscriminatorConfig = dataclasses.field(
        default_factory=PatchDiscriminatorConfig
    )
    discriminator_optimizer: OptimizerConfig | None = None  # required by the adversarial loss
    separate_gradients: bool = False  # log the gradient norm of each loss: one more backward pass

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.adversarial_scale >= 0
            and (self.adversarial_scale > 0) == (self.discriminator_optimizer is not None),
            f"adversarial_scale={self.adversarial_scale}; expected above 0 with a "
            "discriminator_optimizer, and 0 without",
        )
        changing = [
            f"{name}={value}"
            for name in ("weight_decay", "ema_decay")
            if (value := getattr(self.optimizer, name))
        ]
        require(
            not (self.decoder_only and changing),
            f"decoder_only with {' and '.join(changing)}, which changes the encoder; expected 0",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyAutoencoderConfig(PixelStageConfig):
    """A tiny autoencoder of the latents of a frozen one, for fast decoding and previews.

    Raises:
      UserError: A value is out of range.
    """

    tiny_vae: TinyVAEConfig = dataclasses.field(default_factory=TinyVAEConfig)
    #: Weight of the squared error of differences between neighboring pixels: of edges.
    edge_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.edge_scale >= 0, f"edge_scale={self.edge_scale}; expected at least 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlowGeneratorConfig:
    """Before stage 1: a multi-step generator, trained by the diffusion loss.

    Raises:
      UserError: a probability is not one.
    """

    slow_generator: str = _checkpoint()  # checkpoint folder, for example of `flashmotion new`
    optimizer: OptimizerConfig
    timesteps: TimestepsConfig = dataclasses.field(default_factory=TimestepsConfig)
    text_dropout: float = 0.1
    loss_weight: LossWeight = "uniform"
    #: Fraction of the videos that are generated from text alone; 0 trains image-to-video only.
    image_dropout: float = 0.0
    #: Fraction of the others of which more than the image is given: the latent frames that follow
    #: it, as where a video is continued, or a later one, as with a last image or a key frame.
    given_frames: float = 0.0

    def __post_init__(self) -> None:
        for name in ("text_dropout", "image_dropout", "given_frames"):
            require(0 <= getattr(self, name) <= 1, f"{name}={getattr(self, name)}; expected 0 to 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlowAdapterConfig:
    """Stage 1: an adapter on the frozen SlowGenerator, trained by the diffusion loss.

    The kind of adapter determines whether it starts as a copy of the generator's blocks or from
    scratch, see `config.adapters.ADAPTERS`.
    """

    slow_generator: str = _checkpoint()  # checkpoint folder
    adapter: AdapterConfig = dataclasses.field(default_factory=ADAPTERS[DEFAULT_ADAPTER].config)
    #: Checkpoint folder whose adapter is trained further; empty starts a new adapter.
    start_from: str = dataclasses.field(default="", metadata=_FREE)
    #: Trains a LoRA of the generator's blocks instead of a copy, see docs/lora.md.
    lora: LoRAConfig = dataclasses.field(default_factory=LoRAConfig)
    optimizer: OptimizerConfig
    timesteps: TimestepsConfig = dataclasses.field(default_factory=TimestepsConfig)
    text_dropout: float = 0.1  # not in the paper; classifier-free guidance needs some
    # The paper says "standard diffusion loss"; the code it builds on has the bell's weights.
    loss_weight: LossWeight = "uniform"

    def __post_init__(self) -> None:
        require_lora(self.lora, adapter_name(self.adapter))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """Distribution matching distillation (DMD): student, scores and update schedule."""

    student: FewStepConfig = dataclasses.field(default_factory=FewStepConfig)  # rounds for all
    # real = cond + w (cond - uncond): w = 6 equals a guidance scale of 7.
    real_guidance: float = 6.0
    timesteps: TimestepsConfig = dataclasses.field(
        default_factory=lambda: TimestepsConfig(low=20.0, high=980.0)
    )
    # Steps per update of the student; the fake score is updated on each. Both see the same batch;
    # the code that the paper builds on draws one for each, and updates the student first.
    student_every: int = 5
    student_start: int = 0  # first step that may update the student


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastGeneratorConfig:
    """Stage 2: the generator distilled to a few steps by distribution matching.

    The student and both score models start from the SlowGenerator.
    """

    slow_generator: str = _checkpoint()
    optimizer: OptimizerConfig
    fake_score_optimizer: OptimizerConfig
    matching: MatchingConfig = dataclasses.field(default_factory=MatchingConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FastAdapterConfig:
    """Stage 3: the adapter fine-tuned on the FastGenerator by diffusion and adversarial loss.

    Baseline GAN and the ablations of the paper's Tables 2 and 3 are values of these fields.
    """

    slow_generator: str = _checkpoint()  # checkpoint folder: the discriminator's frozen backbone
    fast_generator: str = _checkpoint()  # checkpoint folder
    slow_adapter: str = _checkpoint()  # checkpoint folder whose adapter is fine-tuned
    adapter: str  # a name of `ADAPTERS`
    #: Trains a LoRA: that of stage 1 further if there is one, or else a new one of the SlowAdapter.
    lora: LoRAConfig = dataclasses.field(default_factory=LoRAConfig)
    optimizer: OptimizerConfig
    discriminator_optimizer: OptimizerConfig
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    student: FewStepConfig = dataclasses.field(default_factory=FewStepConfig)
    # Not in the paper. "data" noises real latents, as the diffusion loss needs; "sampler" runs the
    # few-step sampler from noise up to a random step instead.
    fake_from: Literal["data", "sampler"] = "data"
    adversarial: bool = True  # False uses the diffusion loss alone, without a discriminator
    #: lambda, the weight of the diffusion loss.
    diffusion_scale: ScaleConfig = dataclasses.field(default_factory=ScaleConfig)
    # Of the discriminator. The paper says 0 to 1000; whether shifted or clamped is not in it. The
    # GAN of the code it builds on has shift=5, low=20, high=980.
    timesteps: TimestepsConfig = dataclasses.field(
        default_factory=lambda: TimestepsConfig(shift=1.0)
    )
    adapter_every: int = 5  # steps per update of the adapter; the discriminator is updated on each
    adapter_start: int = 0  # first step that may update the adapter
    # Weight of APT's approximate R1 penalty: 0.5 w / penalty_noise^2 for the base code's w.
    real_penalty: float = 0.0
    fake_penalty: float = 0.0  # weight of its approximate R2 penalty
    penalty_noise: float = 0.01  # standard deviation of their perturbation of the latents
    separate_gradients: bool = True  # measures each loss's gradient norm: one more backward pass

    def __post_init__(self) -> None:
        adapter_kind(self.adapter)
        require_lora(self.lora, self.adapter)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DMDConfig:
    """Baseline DMD of the paper's Table 1: an adapter distilled by distribution matching.

    Real score: SlowGenerator and SlowAdapter, frozen. Fake score: the same with a trained adapter.
    The paper does not say; training the fake score's generator too would be 5 B more parameters.
    """

    slow_generator: str = _checkpoint()
    fast_generator: str = _checkpoint()
    slow_adapter: str = _checkpoint()
    adapter: str  # a name of `ADAPTERS`
    optimizer: OptimizerConfig
    fake_score_optimizer: OptimizerConfig
    matching: MatchingConfig = dataclasses.field(default_factory=MatchingConfig)

    def __post_init__(self) -> None:
        adapter_kind(self.adapter)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LCMConfig:
    """Baseline LCM of the paper's Table 1: an adapter consistent with its guided teacher."""

    slow_generator: str = _checkpoint()
    fast_generator: str = _checkpoint()
    slow_adapter: str = _checkpoint()
    adapter: str  # a name of `ADAPTERS`
    optimizer: OptimizerConfig  # its moving average gives the targets
    num_timesteps: int = 50  # of the teacher; predictions at neighboring ones are made equal
    shift: float = 5.0
    guidance_scale: float = 5.0  # of the teacher
    student: FewStepConfig = dataclasses.field(default_factory=FewStepConfig)
    adapter_every: int = 5  # steps per update, as in stage 3

    def __post_init__(self) -> None:
        adapter_kind(self.adapter)
        require(
            self.optimizer.ema_decay > 0,
            "optimizer.ema_decay=0; the moving average gives the targets of consistency training: "
            "set a decay, for example 0.95",
        )


StageConfig = (
    AutoencoderConfig
    | TinyAutoencoderConfig
    | SlowGeneratorConfig
    | SlowAdapterConfig
    | FastGeneratorConfig
    | FastAdapterConfig
    | DMDConfig
    | LCMConfig
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run of `flashmotion train`.

    Raises:
      UserError: A value is out of range.
    """

    stage: StageConfig
    workdir: str = dataclasses.field(metadata=_FREE)  # folder of the run
    #: Folder written by `flashmotion cache`.
    cache: str = dataclasses.field(default="data/MagicData-cache", metadata=_FREE)
    map_kind: CachedMapKind = "box"  # trajectory maps that the adapter is given
    num_train_steps: int = dataclasses.field(metadata=_FREE)
    batch_size: int = 16  # videos per step, over all devices
    seed: int = 0
    dtype: Literal["bfloat16", "float32"] = "bfloat16"  # of matmuls; master weights are float32
    remat: Literal["none", "full", "dots"] = dataclasses.field(default="full", metadata=_FREE)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig, metadata=_FREE)
    num_threads: int = dataclasses.field(default=4, metadata=_FREE)  # that read data
    #: Processes that read data, with `num_threads` each; 0 reads in this process. Clips that are
    #: drawn and videos that are decoded keep one process at one core; reading a cache does not.
    num_workers: int = dataclasses.field(default=0, metadata=_FREE)
    log_every: int = dataclasses.field(default=10, metadata=_FREE)  # steps
    save_every: int = dataclasses.field(default=200, metadata=_FREE)  # steps
    keep: int = dataclasses.field(default=2, metadata=_FREE)  # latest checkpoints, at least two
    keep_best: str = dataclasses.field(default="", metadata=_FREE)  # metric: also keep its minimum
    sample_every: int = dataclasses.field(default=500, metadata=_FREE)  # steps; 0 for no samples
    num_samples: int = dataclasses.field(default=1, metadata=_FREE)  # videos each time

    def __post_init__(self) -> None:
        for name in ("num_train_steps", "batch_size", "num_threads", "log_every", "save_every"):
            value = getattr(self, name)
            require(value >= 1, f"{name}={value}; expected at least 1")
        require(self.num_workers >= 0, f"num_workers={self.num_workers}; expected at least 0")
        require(self.keep >= 2, f"keep={self.keep}; expected at least 2: the newest may be damaged")
