"""Stage 3, FastAdapter: the adapter fine-tuned on the frozen FastGenerator.

The diffusion loss keeps videos on the trajectory, the adversarial loss keeps them sharp (equations
3 to 7). lambda, the weight of the diffusion loss, is `dynamic_scale` of `config.diffusion_scale`.
Baseline GAN and the ablations of Tables 2 and 3 are values of the configuration.

Source: FlashMotion section 3.4; the approximate penalties are APT's, arXiv:2501.08316.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from flashmotion_jax.config import (
    DMDConfig,
    FastAdapterConfig,
    FewStepConfig,
    LCMConfig,
    TrainConfig,
)
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.diffusion.flow import TIMESTEP_SCALE, add_noise, velocity_to_x0
from flashmotion_jax.diffusion.generate import (
    Conditions,
    conditioned_velocity,
    frame_timesteps,
    inject_image,
)
from flashmotion_jax.diffusion.losses import (
    approximate_gradient_penalty,
    discriminator_loss,
    dynamic_scale,
    generator_adversarial_loss,
    x0_loss,
)
from flashmotion_jax.diffusion.samplers import draw_noise
from flashmotion_jax.models.discriminator import Discriminator
from flashmotion_jax.runtime.sharding import look_up
from flashmotion_jax.training.lora import bind_loras, init_lora
from flashmotion_jax.training.stage import (
    ComponentRef,
    ExportSpec,
    Stage,
    export_adapter,
    few_step_sampling,
    from_component,
    from_scratch,
    require_made_for,
)
from flashmotion_jax.training.stages.distribution_matching import sample_student, student_schedule
from flashmotion_jax.training.stages.slow_adapter import data_conditions
from flashmotion_jax.training.train_step import (
    Keys,
    LossFn,
    LossTerm,
    Metrics,
    Models,
    Update,
    draw_noise_and_timesteps,
)


def build(run: TrainConfig, config: FastAdapterConfig) -> Stage:
    """Builds the stage; without the adversarial loss it has no discriminator."""
    slow_generator, fast_generator, adapter = start_components(config)
    backbone = slow_generator.read().config
    if config.lora.rank:
        init, lora = init_lora(
            run,
            config.lora,
            config.optimizer,
            adapter.read().config,
            slow_generator,
            adapter,
        )
    else:
        init, lora = from_component(run, adapter, config.optimizer), None
    trained = {"adapter": init}
    frozen = {"fast_generator": fast_generator}
    updates = (
        Update(
            "adapter",
            adapter_loss(config),
            config.adapter_every,
            config.adapter_start,
            config.separate_gradients and config.adversarial,
        ),
    )
    if config.adversarial:
        trained["discriminator"] = from_scratch(
            run,
            lambda policy, rngs: Discriminator(
                config.discriminator, backbone, policy=policy, rngs=rngs
            ),
            config.discriminator_optimizer,
        )
        frozen["slow_generator"] = slow_generator
        updates = (Update("discriminator", adversarial_loss(config)), *updates)
    stage = Stage(
        trained=trained,
        frozen=frozen,
        updates=updates,
        export=export_fast_adapter(fast_generator, adapter, config.student),
    )
    return bind_loras(stage, lora) if lora else stage


def start_components(
    config: FastAdapterConfig | DMDConfig | LCMConfig,
) -> tuple[ComponentRef, ComponentRef, ComponentRef]:
    """SlowGenerator, FastGenerator and SlowAdapter that stage 3 and its baselines start from.

    Raises:
      UserError: The adapter was made for a DiT of another configuration.
    """
    slow_generator = ComponentRef(config.slow_generator, "dit")
    fast_generator = ComponentRef(config.fast_generator, "dit")
    adapter = ComponentRef(config.slow_adapter, f"adapters/{config.adapter}")
    for generator in (slow_generator, fast_generator):
        require_made_for(adapter, generator)
    return slow_generator, fast_generator, adapter


def export_fast_adapter(
    fast_generator: ComponentRef, adapter: ComponentRef, student: FewStepConfig
) -> ExportSpec:
    """Exports the adapter in the FastGenerator's checkpoint."""
    return export_adapter(
        adapter.kind,
        adapter.read().config,
        "fast_generator",
        fast_generator,
        few_step_sampling(fast_generator, student),
    )


def adapter_loss(config: FastAdapterConfig) -> LossFn:
    """Loss of "adapter": equations 3, 4 and 6."""

    def loss_fn(
        models: Models, batch: Batch, keys: Keys, step: jax.Array
    ) -> tuple[dict[str, LossTerm], Metrics]:
        fake_keys, logit_keys = keys.split(2)
        fake_x0 = _fake_videos(config, models, batch, fake_keys)
        scale = dynamic_scale(step, config.diffusion_scale.slope, config.diffusion_scale.offset)
        terms = {"diffusion": LossTerm(x0_loss(fake_x0, batch.latents, has_image=True), scale)}
        if not config.adversarial:
            return terms, {}
        noise, timesteps = draw_noise_and_timesteps(config.timesteps, batch.latents, logit_keys)
        # The frozen SlowGenerator sees noisy videos, which it was trained on, not clean ones.
        logits = _logits(models, batch, fake_x0, noise, timesteps)
        terms["adversarial"] = LossTerm(generator_adversarial_loss(logits))
        return terms, {"fake_logits": logits.mean()}

    return loss_fn


def adversarial_loss(config: FastAdapterConfig) -> LossFn:
    """Loss of "discriminator": equation 5, and the penalties whose weight is not zero."""

    def loss_fn(
        models: Models, batch: Batch, keys: Keys, step: jax.Array
    ) -> tuple[dict[str, LossTerm], Metrics]:
        del step
        fake_keys, logit_keys, penalty_keys = keys.split(3)
        # The adapter is not trained here: no activations of its four steps are kept.
        fake_x0 = jax.lax.stop_gradient(_fake_videos(config, models, batch, fake_keys))
        # Real and fake videos share noise and timestep, so that they differ in nothing else.
        noise, timesteps = draw_noise_and_timesteps(config.timesteps, batch.latents, logit_keys)
        real = _logits(models, batch, batch.latents, noise, timesteps)
        fake = _logits(models, batch, fake_x0, noise, timesteps)
        terms = {"adversarial": LossTerm(discriminator_loss(real, fake))}
        perturbation = config.penalty_noise * draw_noise(
            penalty_keys.videos, batch.latents.shape[1:]
        )
        for name, weight, x0, logits in (
            ("real_penalty", config.real_penalty, batch.latents, real),
            ("fake_penalty", config.fake_penalty, fake_x0, fake),
        ):
            if weight:
                # The same noise and timestep as `logits`, which therefore need no second pass.
                perturbed = _logits(models, batch, x0, noise, timesteps, perturbation)
                terms[name] = LossTerm(approximate_gradient_penalty(logits, perturbed), weight)
        accuracy = (jnp.mean(real > 0) + jnp.mean(fake < 0)) / 2
        metrics = {"real_logits": real.mean(), "fake_logits": fake.mean(), "accuracy": accuracy}
        return terms, metrics

    return loss_fn


def _fake_videos(config: FastAdapterConfig, models: Models, batch: Batch, keys: Keys) -> jax.Array:
    """x_0 as the FastGenerator with the adapter predicts it at one of its steps."""
    conditions: Conditions = data_conditions(batch)
    student = (models["fast_generator"], models["adapter"])
    if config.fake_from == "sampler":
        return sample_student(student, conditions, batch, config.student, keys)
    noise_keys, step_keys = keys.split(2)
    schedule = student_schedule(config.student)
    draw_step = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(schedule.sigma)))
    step_B = draw_step(step_keys.videos)
    sigma_B, timestep_B = look_up(schedule.sigma, step_B), look_up(schedule.timestep, step_B)
    noise = draw_noise(noise_keys.videos, batch.latents.shape[1:])
    noisy = add_noise(batch.latents, noise, sigma_B)
    velocity = conditioned_velocity(*student, conditions)(noisy, timestep_B)
    return inject_image(velocity_to_x0(noisy, velocity, sigma_B), conditions.image_latents)


def _logits(
    models: Models,
    batch: Batch,
    x0: jax.Array,
    noise: jax.Array,
    timesteps: jax.Array,
    perturbation: jax.Array | float = 0.0,
) -> jax.Array:
    """Logits of noised videos, given their text, first frame and trajectory."""
    image_latents = batch.latents[:, :1]
    noisy = add_noise(x0, noise, timesteps / TIMESTEP_SCALE) + perturbation
    return models["discriminator"](
        models["slow_generator"],
        inject_image(noisy, image_latents),
        frame_timesteps(timesteps, noisy, has_image=True),
        batch.text,
        image_latents,
        # Without the mask of known frames, if there is one: others are zero.
        batch.trajectory[..., : x0.shape[-1]],
    )
