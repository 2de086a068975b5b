"""The stages of the paper, built from their configurations.

A new way to train is a configuration, its losses, and one function here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import nnx

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    ADAPTERS,
    AutoencoderConfig,
    ConsistentAdapterConfig,
    FastAdapterConfig,
    FastGeneratorConfig,
    FewStepConfig,
    MatchedAdapterConfig,
    MatchingConfig,
    SamplingConfig,
    SlowAdapterConfig,
    SlowGeneratorConfig,
    TrainConfig,
    adapter_name,
)
from flashmotion_jax.models.adapters import adapter_class
from flashmotion_jax.models.discriminator import Discriminator
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.training import (
    autoencoder,
    baselines,
    fast_adapter,
    fast_generator,
    inputs,
    slow_adapter,
    slow_generator,
)
from flashmotion_jax.training.stage import (
    Beginning,
    Result,
    Source,
    Stage,
    from_dit,
    from_scratch,
    from_source,
)
from flashmotion_jax.training.turn import Losses, Turn

#: Temporal variance of the student's videos over that of the data: below, they stand still.
MATCHING_BOUNDS = {"temporal_variance": (0.3, 3.0)}
#: Videos whose latents are measured.
STATISTICS_VIDEOS = 256


def build_stage(run: TrainConfig) -> Stage:
    """The stage that a run's configuration asks for; reads sizes of its checkpoints, no weights.

    Raises:
      UserError: a checkpoint is missing or does not fit.
    """
    builders: dict[type, Callable[[TrainConfig, Any], Stage]] = {
        AutoencoderConfig: build_autoencoder,
        SlowGeneratorConfig: build_slow_generator,
        SlowAdapterConfig: build_slow_adapter,
        FastGeneratorConfig: build_fast_generator,
        FastAdapterConfig: build_fast_adapter,
        MatchedAdapterConfig: build_matched_adapter,
        ConsistentAdapterConfig: build_consistent_adapter,
    }
    return builders[type(run.stage)](run, run.stage)


def build_autoencoder(run: TrainConfig, config: AutoencoderConfig) -> Stage:
    """Before the stages; the latents of the trained one are measured, for their normalisation."""
    source = Source(config.autoencoder, "vae")
    old = source.read().config

    def with_statistics(vae: Any) -> Any:
        if config.decoder_only:
            return old
        videos = inputs.open_videos(config)
        some = (videos[i].video for i in range(min(STATISTICS_VIDEOS, len(videos))))
        mean, std = autoencoder.latent_statistics(vae, some)
        return dataclasses.replace(old, latents_mean=mean, latents_std=std)

    return Stage(
        players={"autoencoder": from_source(run, source, config.optimizer)},
        frozen={},
        turns=(Turn("autoencoder", autoencoder.autoencoder_losses(config)),),
        result=Result(
            player="autoencoder",
            kind="vae",
            config=old,
            base=config.autoencoder,
            sampling=components.read_sampling(config.autoencoder),
            dit_config=None,
            generator="",
            adapter=None,
            configure=with_statistics,
        ),
    )


def build_slow_generator(run: TrainConfig, config: SlowGeneratorConfig) -> Stage:
    """Before the stages."""
    source = Source(config.slow_generator, "dit")
    return Stage(
        players={"generator": from_source(run, source, config.optimizer)},
        frozen={},
        turns=(Turn("generator", slow_generator.generator_losses(config)),),
        result=_generator_result(source, components.read_sampling(source.path)),
    )


def build_slow_adapter(run: TrainConfig, config: SlowAdapterConfig) -> Stage:
    """Stage 1."""
    generator = Source(config.slow_generator, "dit")
    kind = f"adapters/{adapter_name(config.adapter)}"
    return Stage(
        players={"adapter": _slow_adapter(run, config, generator, kind)},
        frozen={"slow_generator": generator},
        turns=(Turn("adapter", slow_adapter.adapter_losses(config)),),
        result=_result(
            generator,
            kind,
            config.adapter,
            "slow_generator",
            components.read_sampling(generator.path),
        ),
    )


def _slow_adapter(
    run: TrainConfig, config: SlowAdapterConfig, generator: Source, kind: str
) -> Beginning:
    adapter, optimizer = config.adapter, config.optimizer
    dit_config = generator.read().config
    if config.start_from:
        source = Source(config.start_from, kind)
        if (found := source.read().config) != adapter:
            raise UserError(f"{source.path} has {found}; the configuration asks for {adapter}")
        _require_made_for(source, generator)
        return from_source(run, source, optimizer)
    name = adapter_name(adapter)

    def build(policy: Policy, rngs: nnx.Rngs) -> nnx.Module:
        return adapter_class(name)(adapter, dit_config, policy=policy, rngs=rngs)

    if ADAPTERS[name].copies_dit:
        return from_dit(run, build, generator, optimizer)
    return from_scratch(run, build, optimizer)


def build_fast_generator(run: TrainConfig, config: FastGeneratorConfig) -> Stage:
    """Stage 2."""
    source = Source(config.slow_generator, "dit")
    losses = fast_generator.generator_losses(config)
    return Stage(
        players={
            "generator": from_source(run, source, config.optimizer),
            "fake_score": from_source(run, source, config.fake_score_optimizer),
        },
        frozen={"slow_generator": source},
        turns=_matching_turns("generator", losses, config.matching),
        result=_generator_result(source, _few_step(source, config.matching.student)),
        bounds=MATCHING_BOUNDS,
    )


def build_fast_adapter(run: TrainConfig, config: FastAdapterConfig) -> Stage:
    """Stage 3, and those of its ablations that have a discriminator or only the diffusion loss."""
    slow_generator, fast_generator, adapter = _sources(config)
    backbone = slow_generator.read().config
    players = {"adapter": from_source(run, adapter, config.optimizer)}
    frozen = {"fast_generator": fast_generator}
    turns = (
        Turn(
            "adapter",
            fast_adapter.adapter_losses(config),
            config.adapter_every,
            config.adapter_start,
            config.separate_gradients and config.adversarial,
        ),
    )
    if config.adversarial:
        players["discriminator"] = from_scratch(
            run,
            lambda policy, rngs: Discriminator(
                config.discriminator, backbone, policy=policy, rngs=rngs
            ),
            config.discriminator_optimizer,
        )
        frozen["slow_generator"] = slow_generator
        turns = (Turn("discriminator", fast_adapter.discriminator_losses(config)), *turns)
    return Stage(
        players=players,
        frozen=frozen,
        turns=turns,
        result=_fast_result(fast_generator, adapter, config.student),
    )


def build_matched_adapter(run: TrainConfig, config: MatchedAdapterConfig) -> Stage:
    """Baseline DMD."""
    slow_generator, fast_generator, adapter = _sources(config)
    losses = baselines.matched_adapter_losses(config)
    return Stage(
        players={
            "adapter": from_source(run, adapter, config.optimizer),
            "fake_score": from_source(run, adapter, config.fake_score_optimizer),
        },
        frozen={
            "slow_generator": slow_generator,
            "fast_generator": fast_generator,
            "slow_adapter": adapter,
        },
        turns=_matching_turns("adapter", losses, config.matching),
        result=_fast_result(fast_generator, adapter, config.matching.student),
        bounds=MATCHING_BOUNDS,
    )


def build_consistent_adapter(run: TrainConfig, config: ConsistentAdapterConfig) -> Stage:
    """Baseline LCM."""
    slow_generator, fast_generator, adapter = _sources(config)
    losses = baselines.consistent_adapter_losses(config)
    return Stage(
        players={"adapter": from_source(run, adapter, config.optimizer)},
        frozen={
            "slow_generator": slow_generator,
            "fast_generator": fast_generator,
            "slow_adapter": adapter,
        },
        turns=(Turn("adapter", losses, config.adapter_every),),
        result=_fast_result(fast_generator, adapter, config.student),
    )


def _sources(
    config: FastAdapterConfig | MatchedAdapterConfig | ConsistentAdapterConfig,
) -> tuple[Source, Source, Source]:
    """Of slow generator, fast generator and slow adapter.

    Raises:
      UserError: the adapter is for a DiT of other sizes.
    """
    slow_generator = Source(config.slow_generator, "dit")
    fast_generator = Source(config.fast_generator, "dit")
    adapter = Source(config.slow_adapter, f"adapters/{config.adapter}")
    for generator in (slow_generator, fast_generator):
        _require_made_for(adapter, generator)
    return slow_generator, fast_generator, adapter


def _require_made_for(adapter: Source, generator: Source) -> None:
    expected, found = adapter.read().dit_config, generator.read().config
    if expected != found:
        raise UserError(
            f"the adapter of {adapter.path} is for {expected}; {generator.path} has {found}"
        )


def _matching_turns(
    student: str, losses: tuple[Losses, Losses], config: MatchingConfig
) -> tuple[Turn, ...]:
    """The fake score plays first: it shall know the student's videos before it judges them."""
    student_losses, fake_losses = losses
    return (
        Turn("fake_score", fake_losses),
        Turn(student, student_losses, config.student_every, config.student_start),
    )


def _generator_result(source: Source, sampling: SamplingConfig) -> Result:
    """A generator, in a checkpoint with what it started with."""
    return Result(
        player="generator",
        kind="dit",
        config=source.read().config,
        base=source.path,
        sampling=sampling,
        dit_config=None,
        generator="generator",
        adapter=None,
    )


def _result(
    dit: Source, kind: str, config: Any, generator: str, sampling: SamplingConfig
) -> Result:
    """An adapter, in a checkpoint with the generator that it was trained on."""
    return Result(
        player="adapter",
        kind=kind,
        config=config,
        base=dit.path,
        sampling=sampling,
        dit_config=dit.read().config,
        generator=generator,
        adapter="adapter",
    )


def _fast_result(fast_generator: Source, adapter: Source, student: FewStepConfig) -> Result:
    """A FastAdapter."""
    return _result(
        fast_generator,
        adapter.kind,
        adapter.read().config,
        "fast_generator",
        _few_step(fast_generator, student),
    )


def _few_step(generator: Source, student: FewStepConfig) -> SamplingConfig:
    return dataclasses.replace(
        components.read_sampling(generator.path),
        sampler="few_step",
        denoising_steps=student.denoising_steps,
        warp_denoising_steps=student.warp_denoising_steps,
        shift=student.shift,
    )
