"""A third kind of adapter is a class, a row of the table and its converter names, nothing else."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashmotion_jax import Pipeline
from flashmotion_jax.checkpoints import components
from flashmotion_jax.cli.main import build_parser
from flashmotion_jax.config import (
    ADAPTERS,
    AdapterConfig,
    AdapterKind,
    OptimizerConfig,
    TrainConfig,
    load_config,
)
from flashmotion_jax.converters import adapters as converter_names
from flashmotion_jax.converters.exporting import export_adapter
from flashmotion_jax.converters.importing import convert_file
from flashmotion_jax.models import layers
from flashmotion_jax.models.dit import ResidualStream
from flashmotion_jax.models.layers import FLOAT32
from flashmotion_jax.perf import plan, topology
from flashmotion_jax.runtime.devices import CompileTarget
from flashmotion_jax.runtime.sharding import gather, split_tokens
from helpers import run_small, tiny

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(AdapterConfig):
    """Configuration of `Toy`."""

    gain: float = 2.0


class Toy(nnx.Module):
    """Projects the patches of the trajectory's latents, once for each block."""

    def __init__(self, config, dit_config, *, policy=FLOAT32, rngs):
        self.gain = config.gain
        self.patch_size = dit_config.patch_size
        width = dit_config.in_channels * dit_config.patch_size[0] * dit_config.patch_size[1]
        self.projections = layers.stack(
            lambda block_rngs: layers.linear(
                width, dit_config.dim, (None, "embed"), policy=policy, rngs=block_rngs, zero=True
            ),
            dit_config.num_layers,
            rngs,
        )

    def prepare(self, trajectory, text):
        return split_tokens(layers.patchify(trajectory, self.patch_size))

    def __call__(self, prepared, latents, timesteps, scale):
        def step(carry, projection):
            residual = gather(projection)(self.gain * prepared)
            return carry, scale * residual.astype(jnp.float32)

        return ResidualStream((), self.projections, step)


ROW = AdapterKind(
    title="Toy",
    config=ToyConfig,
    module=f"{__name__}:Toy",
    copies_dit=False,
    groups={"projections": 1.0},
)
NAMES = converter_names.AdapterNames(
    modules=(("projections", ("toy_projections.{layer}",)),),
    signature="projections",
    read_config=lambda names, source, dit_config: (ToyConfig(), []),
)


@pytest.fixture(scope="module", autouse=True)
def toy_kind():
    """Registers the kind while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ADAPTERS, "toy", ROW)
        patch.setitem(converter_names.NAMES, "toy", NAMES)
        patch.setattr(converter_names, "PROJECTIONS", ("toy_projections.{layer}",))
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    run_small.prepare(folder)
    return folder


def config(prepared, *overrides):
    """Stage 1 with the toy adapter."""
    run = run_small.config(prepared, prepared / "run", "slow_adapter", *overrides)
    optimizer = OptimizerConfig(learning_rate=1e-2, groups=dict(ROW.groups))
    stage = dataclasses.replace(run.stage, adapter=ToyConfig(), optimizer=optimizer)
    return dataclasses.replace(run, stage=stage)


@pytest.fixture(scope="module")
def model(prepared):
    """The checkpoint that two steps of training write."""
    return run_small.train(config(prepared, "num_train_steps=2")).model


def kernels(model):
    module = components.load_component(model, "adapters/toy", "float32")
    return np.asarray(module.projections.kernel.get_value())


def test_it_trains_and_is_saved_and_loaded(model):
    component = components.read_component(model, "adapters/toy")
    assert component.config == ToyConfig() and component.dit_config == tiny.DIT
    assert np.abs(kernels(model)).min(axis=(1, 2)).max() > 0  # they start at zero


def test_it_guides_a_video(model):
    trajectory = np.zeros((9, 64, 96, 3), np.uint8)
    trajectory[:, 8:40, 8:40] = 255
    image = np.zeros((64, 96, 3), np.uint8)
    with_toy = Pipeline.from_pretrained(model, "toy")(image, "", trajectory, guidance_scale=1)
    without = Pipeline.from_pretrained(model, None)(image, "", guidance_scale=1)
    assert with_toy.shape == without.shape
    assert (with_toy != without).any()


def test_it_goes_to_pytorch_and_back(model, prepared, tmp_path):
    file = tmp_path / "toy.safetensors"
    export_adapter(model, file, "toy", dtype=None)
    destination = tmp_path / "imported"
    components.write_sampling(destination, components.read_sampling(model))
    (destination / "dit").symlink_to(prepared / "base" / "dit")
    convert_file(str(file), destination, dtype="float32", overwrite=False)
    np.testing.assert_array_equal(kernels(destination), kernels(model))


def test_its_training_can_be_planned(prepared):
    target = CompileTarget(("cpu",), 1e12, "cpu", 2**30, 1e11, 1e10, 1e10, 4, "made up")
    devices = topology.Topology("test:8", target, jax.devices())
    options = ("mesh.data=2", "mesh.fsdp=4", "batch_size=8")
    planned = plan.plan_training(config(prepared, *options), devices, None, lambda text: None)
    assert not planned.problems and planned.compiled[0].memory.arguments > 0


def test_commands_and_configurations_know_it():
    assert build_parser().parse_args(["sample", "--adapter", "toy"]).adapter == "toy"
    run = load_config(str(ROOT / "configs" / "stage1_mask.py:toy"), TrainConfig)
    assert run.stage.adapter == ToyConfig() and run.stage.optimizer.groups == ROW.groups
    assert run == load_config(str(ROOT / "configs" / "stage1_mask_toy.py"), TrainConfig)


def test_few_files_name_the_kinds():
    """The kinds themselves, their rows, converter names, weights and LoRAs, and files of others."""
    files = [
        file
        for folder in ("flashmotion_jax", "converters", "configs")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    ]
    pattern = re.compile(rb"resnet|controlnet|sparsectrl|ResNet|ControlNet|SparseCtrl")
    naming = [str(file.relative_to(ROOT)) for file in files if pattern.search(file.read_bytes())]
    assert len(naming) <= 12, naming
