"""What `build_stage` builds from every configuration, and two steps of stage 3."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    DiscriminatorConfig,
    DiTConfig,
    DMDConfig,
    FastAdapterConfig,
    FastGeneratorConfig,
    FewStepConfig,
    LCMConfig,
    MatchingConfig,
    OptimizerConfig,
    SamplingConfig,
    SlowAdapterConfig,
    TrainConfig,
)
from flashmotion_jax.config.adapters import ControlNetConfig, ResNetAdapterConfig
from flashmotion_jax.data.batches import Batch
from flashmotion_jax.runtime import sharding
from flashmotion_jax.training.abstract import abstract_states
from flashmotion_jax.training.stage import ComponentRef, frozen_policy, trained_policy
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.train_state import to_arrays
from flashmotion_jax.training.train_step import make_train_step
from helpers import compiling, tiny

DIT = DiTConfig(dim=48, num_heads=2, ffn_dim=32, num_layers=2, text_dim=32, text_len=4)
OTHER_DIT = dataclasses.replace(DIT, ffn_dim=48)
RESNET = ResNetAdapterConfig(width=16)
SLOW = SamplingConfig(sampler="unipc", solver_steps=30, num_frames=9, height=64, width=96)
FAST = dataclasses.replace(SLOW, num_frames=13)
RATE = OptimizerConfig(learning_rate=1e-3)
FAKE_RATE = OptimizerConfig(learning_rate=2e-3)
STUDENT = FewStepConfig(denoising_steps=(1000, 500), warp_denoising_steps=False, shift=3.0)
MATCHING = MatchingConfig(student=STUDENT, student_every=3, student_start=2)
DISCRIMINATOR = DiscriminatorConfig(block_indices=(0, 1), dim=16, num_heads=2)


def save(folder, sampling, dit_config, seed, parts):
    components.write_sampling(folder, sampling)
    for kind, config in parts.items():
        adapter_of = None if kind == "dit" else dit_config
        abstract = components.abstract_module(kind, config, "float32", adapter_of)
        readers = components.parameter_readers(tiny.random_weights(abstract, seed))
        components.save_component(folder, kind, config, readers, "float32", dit_config=adapter_of)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints by name, as strings."""
    root = tmp_path_factory.mktemp("checkpoints")
    adapters = {"adapters/resnet": RESNET, "adapters/controlnet": ControlNetConfig()}
    save(root / "slow", SLOW, DIT, 1, {"dit": DIT, **adapters})
    save(root / "fast", FAST, DIT, 2, {"dit": DIT})
    save(root / "mask", SLOW, DIT, 3, {"adapters/resnet": RESNET})
    save(root / "other", SLOW, OTHER_DIT, 4, {"dit": OTHER_DIT, "adapters/resnet": RESNET})
    save(root / "other_adapter", SLOW, OTHER_DIT, 4, {"adapters/resnet": RESNET})
    return {path.name: str(path) for path in root.iterdir()}


def run_of(stage, **changes):
    settings = {
        "workdir": "",
        "num_train_steps": 5,
        "batch_size": 4,
        "dtype": "float32",
        "remat": "none",
    }
    return TrainConfig(stage=stage, **settings | changes)


def checkpoints(folders, adapter="resnet"):
    """The checkpoint fields of stage 3 and its baselines."""
    return {
        "slow_generator": folders["slow"],
        "fast_generator": folders["fast"],
        "slow_adapter": folders["slow"],
        "adapter": adapter,
        "optimizer": RATE,
    }


def slow_adapter(folders, **changes):
    settings = {"slow_generator": folders["slow"], "adapter": RESNET, "optimizer": RATE}
    return SlowAdapterConfig(**settings | changes)


def fast_generator(folders):
    return FastGeneratorConfig(
        slow_generator=folders["slow"],
        optimizer=RATE,
        fake_score_optimizer=FAKE_RATE,
        matching=MATCHING,
    )


def fast_adapter(folders, adapter="resnet", **changes):
    return FastAdapterConfig(
        **checkpoints(folders, adapter),
        discriminator_optimizer=FAKE_RATE,
        discriminator=DISCRIMINATOR,
        student=STUDENT,
        adapter_every=2,
        adapter_start=4,
        **changes,
    )


def dmd(folders, adapter="resnet"):
    return DMDConfig(
        **checkpoints(folders, adapter), fake_score_optimizer=FAKE_RATE, matching=MATCHING
    )


def lcm(folders, adapter="resnet"):
    optimizer = dataclasses.replace(RATE, ema_decay=0.9)
    return LCMConfig(**checkpoints(folders, adapter) | {"optimizer": optimizer}, student=STUDENT)


def schedule(stage):
    """The updates in their order: `(model, every, start, separate_gradients)`."""
    return [(t.model, t.every, t.start, t.separate_gradients) for t in stage.updates]


def sources(folders, **frozen):
    """Role to source, given as `(folder, kind)`."""
    return {role: ComponentRef(folders[folder], kind) for role, (folder, kind) in frozen.items()}


def few_step(sampling):
    return dataclasses.replace(
        sampling,
        sampler="few_step",
        denoising_steps=(1000, 500),
        warp_denoising_steps=False,
        shift=3.0,
        needs_image=True,
    )


@pytest.mark.parametrize("adapter", [RESNET, ControlNetConfig()])
def test_stage_1(folders, adapter):
    stage = build_stage(run_of(slow_adapter(folders, adapter=adapter)))
    kind = "adapters/resnet" if adapter == RESNET else "adapters/controlnet"
    assert schedule(stage) == [("adapter", 1, 0, False)]
    assert stage.frozen == sources(folders, slow_generator=("slow", "dit"))
    assert list(stage.trained) == ["adapter"] and not stage.bounds
    starts_as = None if adapter == RESNET else ComponentRef(folders["slow"], "dit")
    assert stage.trained["adapter"].source == starts_as
    export = stage.export
    assert (export.model, export.kind, export.config) == ("adapter", kind, adapter)
    assert (export.base, export.sampling, export.dit_config) == (folders["slow"], SLOW, DIT)
    assert (export.generator, export.adapter) == ("slow_generator", "adapter")


def test_stage_2(folders):
    stage = build_stage(run_of(fast_generator(folders)))
    assert schedule(stage) == [("fake_score", 1, 0, False), ("generator", 3, 2, False)]
    assert stage.frozen == sources(folders, slow_generator=("slow", "dit"))
    assert {init.source for init in stage.trained.values()} == set(stage.frozen.values())
    assert stage.trained["generator"].optimizer == RATE
    assert stage.trained["fake_score"].optimizer == FAKE_RATE
    export = stage.export
    assert (export.model, export.kind, export.config) == ("generator", "dit", DIT)
    assert (export.base, export.sampling) == (folders["slow"], few_step(SLOW))
    assert (export.dit_config, export.generator, export.adapter) == (None, "generator", None)
    assert stage.bounds == {"temporal_variance": (0.3, 3.0)}


FROZEN = {
    "slow_generator": ("slow", "dit"),
    "fast_generator": ("fast", "dit"),
}


def assert_exports_a_fast_adapter(stage, folders, kind):
    export = stage.export
    config = RESNET if kind == "adapters/resnet" else ControlNetConfig()
    assert stage.trained["adapter"].source == ComponentRef(folders["slow"], kind)
    assert (export.model, export.kind, export.config) == ("adapter", kind, config)
    assert (export.base, export.sampling) == (folders["fast"], few_step(FAST))
    assert (export.dit_config, export.generator) == (DIT, "fast_generator")
    assert export.adapter == "adapter"


@pytest.mark.parametrize("adapter", ["resnet", "controlnet"])
def test_stage_3(folders, adapter):
    stage = build_stage(run_of(fast_adapter(folders, adapter)))
    assert schedule(stage) == [("discriminator", 1, 0, False), ("adapter", 2, 4, True)]
    assert stage.frozen == sources(folders, **FROZEN)
    assert_exports_a_fast_adapter(stage, folders, f"adapters/{adapter}")
    discriminator = stage.trained["discriminator"]
    assert discriminator.source is None and discriminator.optimizer == FAKE_RATE
    assert stage.trained["adapter"].optimizer == RATE and not stage.bounds


def test_stage_3_without_the_adversarial_loss_has_no_discriminator(folders):
    stage = build_stage(run_of(fast_adapter(folders, adversarial=False)))
    assert schedule(stage) == [("adapter", 2, 4, False)]
    assert list(stage.trained) == ["adapter"]
    assert stage.frozen == sources(folders, fast_generator=("fast", "dit"))


@pytest.mark.parametrize("adapter", ["resnet", "controlnet"])
def test_baseline_dmd(folders, adapter):
    stage = build_stage(run_of(dmd(folders, adapter)))
    kind = f"adapters/{adapter}"
    assert schedule(stage) == [("fake_score", 1, 0, False), ("adapter", 3, 2, False)]
    assert stage.frozen == sources(folders, **FROZEN, slow_adapter=("slow", kind))
    assert stage.trained["fake_score"].source == ComponentRef(folders["slow"], kind)
    assert stage.trained["fake_score"].optimizer == FAKE_RATE
    assert stage.bounds == {"temporal_variance": (0.3, 3.0)}
    assert_exports_a_fast_adapter(stage, folders, kind)


def test_baseline_lcm(folders):
    stage = build_stage(run_of(lcm(folders)))
    assert schedule(stage) == [("adapter", 5, 0, False)]
    slow_adapter = ("slow", "adapters/resnet")
    assert stage.frozen == sources(folders, **FROZEN, slow_adapter=slow_adapter)
    assert list(stage.trained) == ["adapter"]
    assert_exports_a_fast_adapter(stage, folders, "adapters/resnet")


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (fast_adapter, {"slow_generator": "other"}, r"the adapter of .*slow is for .*other has"),
        (dmd, {"fast_generator": "other"}, r"the adapter of .*slow is for .*other has"),
        (
            lcm,
            {"slow_adapter": "other"},
            r"the adapter of .*other is for .*slow has",
        ),
        (fast_adapter, {"slow_adapter": "fast"}, r"fast has no adapters/resnet, only dit"),
        (fast_generator, {"slow_generator": "mask"}, r"mask has no dit, only adapters/resnet"),
        (slow_adapter, {"slow_generator": "gone"}, r"gone"),
        (slow_adapter, {"start_from": "fast"}, r"fast has no adapters/resnet, only dit"),
        (slow_adapter, {"start_from": "other_adapter"}, r"other_adapter is for .*; .*slow has"),
        (
            slow_adapter,
            {"start_from": "mask", "adapter": ResNetAdapterConfig(width=8)},
            r"mask has .*width=16.*; the configuration asks for .*width=8",
        ),
    ],
)
def test_checkpoints_that_do_not_fit(folders, make, changes, message):
    paths = {
        field: folders.get(value, value) if isinstance(value, str) else value
        for field, value in changes.items()
    }
    config = dataclasses.replace(make(folders), **paths)
    with pytest.raises(ValueError, match=message):
        build_stage(run_of(config))


def test_trained_weights_are_float32_and_frozen_weights_have_the_compute_dtype(folders):
    run = run_of(fast_adapter(folders), dtype="bfloat16", remat="full")
    stage = build_stage(run)
    for init in stage.trained.values():
        assert {leaf.dtype for leaf in jax.tree.leaves(init.abstract)} == {jnp.dtype("float32")}
    source = stage.frozen["fast_generator"]
    kernel = source.abstract(frozen_policy(run)).blocks.ffn.up.kernel
    assert kernel.dtype == jnp.bfloat16
    assert trained_policy(run).compute == "bfloat16" and trained_policy(run).remat == "full"


def test_stage_1_starts_from_an_adapter(folders):
    stage = build_stage(run_of(slow_adapter(folders, start_from=folders["mask"])))
    source = stage.trained["adapter"].source
    assert source == ComponentRef(folders["mask"], "adapters/resnet")
    initial = to_arrays(stage.trained["adapter"].load())
    stored = to_arrays(components.load_component(folders["mask"], source.kind, "float32"))
    for path, array in initial.items():
        np.testing.assert_array_equal(array, stored[path])


def test_a_controlnet_starts_as_the_dit_and_changes_nothing(folders):
    stage = build_stage(run_of(slow_adapter(folders, adapter=ControlNetConfig())))
    dit = components.load_component(folders["slow"], "dit", "float32")
    controlnet = stage.trained["adapter"].load()
    copied = to_arrays(controlnet)
    for path, array in to_arrays(dit).items():
        if path == "patch_embedding.kernel":
            # Patches are [rows, columns, channels]; those of the trajectory follow the latents'.
            kernel = copied[path].reshape(2, 2, 96, DIT.dim)
            np.testing.assert_array_equal(kernel[:, :, :48], array.reshape(2, 2, 48, DIT.dim))
            np.testing.assert_array_equal(kernel[:, :, 48:], 0)
        elif not path.startswith("head."):
            np.testing.assert_array_equal(copied[path], array, err_msg=path)

    inputs = tiny.dit_inputs(frames=2, width=4, tokens=DIT.text_len, config=DIT)

    jit = functools.partial(jax.jit, compiler_options=compiling.FUSED_AS_FOR_USERS)

    @jit
    def velocity(dit, controlnet, latents, timesteps, text):
        prepared = controlnet.prepare(latents[::-1], text)
        return dit(latents, timesteps, text, controlnet(prepared, latents, timesteps, 1.0))

    alone = jit(lambda dit, *inputs: dit(*inputs))(dit, *inputs)
    np.testing.assert_array_equal(velocity(dit, controlnet, *inputs), alone)


def layout(tree):
    """Structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def snapshot(tree):
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


def changed(before, tree):
    """For each array, whether it has changed."""
    return [not np.array_equal(*pair) for pair in zip(before, snapshot(tree), strict=True)]


def test_an_update_changes_its_own_model_only(folders):
    """Stage 3, two updates of each model: at the second, optimizers have momentum."""
    config = fast_adapter(folders, separate_gradients=False)
    stage = build_stage(run_of(config))
    mesh = sharding.make_mesh()
    with jax.set_mesh(mesh):
        policy = frozen_policy(run_of(config))
        frozen = {role: source.load(policy) for role, source in stage.frozen.items()}
        states = {name: init.create_train_state() for name, init in stage.trained.items()}
        latents, _, text = tiny.dit_inputs(4, 2, 2, 4, DIT.text_len, DIT)
        batch = jax.device_put(
            Batch(latents, latents[::-1], text), NamedSharding(mesh, sharding.BATCH)
        )
        steps = [
            make_train_step(update, stage.trained[update.model].optimizer)
            for update in stage.updates
        ]
        frozen_before = snapshot(frozen)
        for step in range(2):
            for update, run in zip(stage.updates, steps, strict=True):
                before = {name: snapshot(state) for name, state in states.items()}
                state = states.pop(update.model)
                others = {name: other.params for name, other in states.items()}
                states[update.model], metrics = run(
                    state, frozen | others, batch, jax.random.key(step), jnp.int32(step)
                )
                assert all(np.isfinite(value) for value in metrics.values())
                for name, state in states.items():
                    if name == update.model:
                        assert all(changed(before[name], state))
                    else:
                        assert not any(changed(before[name], state))
        assert not any(changed(frozen_before, frozen))
        assert layout(states) == layout(abstract_states(stage))
