"""ControlNets that are trained as LoRAs of frozen models."""

from __future__ import annotations

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.verification import verify_components
from flashmotion_jax.config import (
    DiscriminatorConfig,
    FastAdapterConfig,
    LoRAConfig,
    OptimizerConfig,
    SlowAdapterConfig,
    TrainConfig,
)
from flashmotion_jax.config.adapters import (
    ControlNetConfig,
    ControlNetLoRAConfig,
    ResNetAdapterConfig,
)
from flashmotion_jax.converters.lora import component_of, open_lora, plan_lora
from flashmotion_jax.converters.lora_export import export_lora
from flashmotion_jax.inference.lora import Weighted, load_merged
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.training.lora import BASE
from flashmotion_jax.training.stage import ComponentRef
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.train_state import to_arrays
from flashmotion_jax.training.trainer import train
from helpers import run_small, tiny

RANK = 3
LORA = LoRAConfig(rank=RANK, alpha=6)
RATE = OptimizerConfig(learning_rate=1e-2, ema_decay=0.5)
KIND, LORA_KIND = "adapters/controlnet", "adapters/controlnet_lora"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A checkpoint and a latent cache."""
    folder = tmp_path_factory.mktemp("prepared")
    run_small.prepare(folder)
    return folder


def stage1(prepared, **changes):
    base = str(prepared / "base")
    settings = {"adapter": ControlNetConfig(), "lora": LORA, "optimizer": RATE}
    return SlowAdapterConfig(slow_generator=base, **settings | changes)


def stage3(prepared, slow_adapter, **changes):
    base = str(prepared / "base")
    return FastAdapterConfig(
        slow_generator=base,
        fast_generator=base,
        slow_adapter=str(slow_adapter),
        adapter="controlnet",
        lora=LORA,
        optimizer=RATE,
        discriminator_optimizer=RATE,
        discriminator=DiscriminatorConfig(block_indices=(1,), dim=16, num_heads=2),
        adapter_every=1,
        separate_gradients=False,
        **changes,
    )


def run_of(prepared, workdir, stage, **changes):
    return TrainConfig(
        stage=stage,
        cache=str(prepared / "cache"),
        workdir=str(workdir),
        **{
            "num_train_steps": 4,
            "batch_size": 2,
            "dtype": "float32",
            "remat": "full",
            "save_every": 2,
            "sample_every": 0,
        }
        | changes,
    )


@pytest.fixture(scope="module")
def trained(prepared):
    """Stage 1, four steps without interruption."""
    config = run_of(prepared, prepared / "run", stage1(prepared))
    return train(config, quiet=True)


def arrays_of(folder, kind):
    module = components.load_component(folder, kind, "float32")
    return {path: np.asarray(array) for path, array in to_arrays(module).items()}


def test_the_trained_parameters(prepared):
    init = build_stage(run_of(prepared, "", stage1(prepared))).trained["adapter"]
    arrays = to_arrays(init.abstract)
    dim, wide, layers = tiny.DIT.dim, tiny.DIT.ffn_dim, tiny.DIT.num_layers
    low_rank = RANK * (8 * (dim + dim) + 2 * (dim + wide))
    own = {"patch_embedding": (4 * 96 + 1) * dim, "projections": layers * (dim + 1) * dim}
    for prefix, count in {**own, "blocks": layers * low_rank}.items():
        found = sum(a.size for path, a in arrays.items() if path.startswith(prefix))
        assert found == count, prefix
    assert {path.split(".")[0] for path in arrays} == {*own, "blocks"}
    kernel = components.flat_parameters(init.abstract)["blocks.ffn.up.up.kernel"]
    assert kernel.get_metadata()["axes"] == (None, "mlp")


def test_it_starts_as_a_copy_of_the_generator(prepared):
    run = run_of(prepared, "", stage1(prepared))
    bound = build_stage(run).trained["adapter"].load()
    dit = components.load_component(prepared / "base", "dit", "float32")
    full = build_stage(run_of(prepared, "", stage1(prepared, lora=LoRAConfig())))
    copied = full.trained["adapter"].load()
    features = {}
    for name, controlnet in (("LoRA", bound.on(dit)), ("full", copied)):
        # The outputs of the blocks, for which the projections must not be zero.
        controlnet = _with_projections(controlnet)
        features[name] = _velocity(dit, controlnet)
    np.testing.assert_allclose(features["LoRA"], features["full"], atol=1e-6)


def _with_projections(controlnet):
    rng = np.random.default_rng(0)
    kernel = controlnet.projections.kernel
    kernel.set_value(jnp.asarray(rng.standard_normal(kernel.shape, np.float32) / 7))
    return controlnet


def _velocity(dit, controlnet):
    latents, timesteps, text = tiny.dit_inputs(frames=2, width=4)

    @jax.jit
    def velocity(dit, controlnet, *inputs):
        prepared = controlnet.prepare(inputs[0][::-1], inputs[2])
        return dit(*inputs, controlnet(prepared, *inputs[:2], 1.0))

    return velocity(dit, controlnet, latents, timesteps, text)


def test_the_export_is_the_lora_and_the_adapter_that_it_makes(prepared, trained):
    assert dict(verify_components(trained.model)) == dict.fromkeys(
        ["dit", "vae", "tiny_vae", "text_encoder", KIND, LORA_KIND, "tokenizer"]
    )
    base, lora, merged = (arrays_of(trained.model, kind) for kind in ("dit", LORA_KIND, KIND))
    config = components.read_component(trained.model, LORA_KIND).config
    key = components.read_component(prepared / "base", "dit").key
    assert config == ControlNetLoRAConfig(rank=RANK, factor=2.0, base=key)
    for path, array in merged.items():
        module = path.removesuffix(".kernel")
        if path in lora:
            np.testing.assert_array_equal(array, lora[path])
        elif f"{module}.down.kernel" in lora:
            down, up = (lora[f"{module}.{name}.kernel"] for name in ("down", "up"))
            expected = base[path] + 2 * np.einsum("lir,lro->lio", down, up)
            np.testing.assert_allclose(array, expected, atol=1e-6)
            assert (array != base[path]).any(), path
        else:
            np.testing.assert_array_equal(array, base[path])
    # What training computed with is what is exported.
    dit = components.load_component(trained.model, "dit", "float32")
    pair = components.load_component(trained.model, LORA_KIND, "float32").on(dit)
    whole = components.load_component(trained.model, KIND, "float32")
    np.testing.assert_allclose(_velocity(dit, pair), _velocity(dit, whole), atol=2e-5)


def test_frozen_weights_keep_their_bits_and_all_others_move(prepared, trained):
    for kind in ("dit", "vae"):
        before, after = (arrays_of(folder, kind) for folder in (prepared / "base", trained.model))
        for path, array in before.items():
            assert array.tobytes() == after[path].tobytes()
    run = run_of(prepared, "", stage1(prepared))
    start = to_arrays(build_stage(run).trained["adapter"].load())
    for path, array in arrays_of(trained.model, LORA_KIND).items():
        assert (array != start[path]).any(), path


def test_resuming_gives_the_same_bits_with_one_compilation(prepared, trained, tmp_path):
    config = run_of(prepared, tmp_path / "run", stage1(prepared), num_train_steps=2)
    train(config, quiet=True)
    with Compilations() as names:
        resumed = train(dataclasses.replace(config, num_train_steps=4), quiet=True)
    assert names.count("jit(train_step)") == 1
    for path, array in arrays_of(resumed.model, LORA_KIND).items():
        assert array.tobytes() == arrays_of(trained.model, LORA_KIND)[path].tobytes(), path


class Compilations(logging.Handler):
    """The names of the programs that are compiled."""

    def __enter__(self):
        self.names = []
        self._logger = logging.getLogger("jax._src.dispatch")
        self._level = self._logger.level
        self._logger.addHandler(self)
        self._logger.setLevel(logging.DEBUG)
        return self.names

    def __exit__(self, *error):
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)

    def emit(self, record):
        message = record.getMessage()
        if message.startswith("Finished XLA compilation of "):
            self.names.append(message.split()[4])


@pytest.mark.parametrize("program", ["comfyui", "diffusers"])
def test_the_exported_file_makes_the_adapter_again(prepared, trained, tmp_path, program):
    """Merged into a ControlNet that is a copy of the generator, by the reader of such files."""
    path = tmp_path / "lora.safetensors"
    export_lora(trained.model, path, program, dtype=None)
    full = build_stage(run_of(prepared, "", stage1(prepared, lora=LoRAConfig())))
    copied = full.trained["adapter"].load()
    file, _ = open_lora(path)
    assert component_of(file) == "adapter"
    parameters = components.flat_parameters(copied)
    lora = plan_lora(file, path, ControlNetConfig(), parameters, tiny.DIT)
    merged = to_arrays(load_merged(lambda: copied, [Weighted(lora, 1.0)]))
    for name, array in arrays_of(trained.model, KIND).items():
        if not name.startswith(("patch_embedding", "projections")):
            np.testing.assert_allclose(merged[name], array, atol=1e-6, err_msg=name)
    with pytest.raises(UserError, match="exists"):
        export_lora(trained.model, path, program, dtype=None)
    with pytest.raises(UserError, match="has no LoRA"):
        export_lora(prepared / "base", tmp_path / "b.safetensors", program, dtype=None)


def test_diffusers_reads_the_exported_file(prepared, trained, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("peft")
    path = tmp_path / "lora.safetensors"
    export_lora(trained.model, path, "diffusers", dtype="float32")
    model = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=tiny.DIT.num_heads,
        attention_head_dim=tiny.DIT.head_dim,
        in_channels=48,
        out_channels=48,
        text_dim=tiny.DIT.text_dim,
        freq_dim=tiny.DIT.freq_dim,
        ffn_dim=tiny.DIT.ffn_dim,
        num_layers=tiny.DIT.num_layers,
    )
    before = model.blocks[1].ffn.net[2].weight.detach().numpy().copy()
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    state, metadata = WanLoraLoaderMixin.lora_state_dict(str(path), return_lora_metadata=True)
    model.load_lora_adapter(state, prefix="transformer", metadata=metadata)
    model.fuse_lora()
    model.unload_lora()
    change = model.blocks[1].ffn.net[2].weight.detach().numpy() - before
    lora = arrays_of(trained.model, LORA_KIND)
    down, up = (lora[f"blocks.ffn.down.{name}.kernel"][1] for name in ("down", "up"))
    np.testing.assert_allclose(change, 2 * (down @ up).T, atol=1e-6)


@pytest.mark.parametrize("adversarial", [True, False])
def test_stage_3_trains_the_lora_further(prepared, trained, adversarial):
    config = stage3(prepared, trained.model, adversarial=adversarial)
    stage = build_stage(run_of(prepared, "", config))
    generator = ComponentRef(str(prepared / "base"), "dit")
    assert stage.trained["adapter"].source == ComponentRef(str(trained.model), LORA_KIND)
    assert stage.export.lora.base == generator and generator in stage.frozen.values()
    assert BASE not in stage.frozen


@pytest.mark.slow
def test_stage_3_of_a_whole_adapter_starts_a_new_lora(prepared, tmp_path):
    """As with a published ControlNet: it is frozen, and only the LoRA is trained."""
    config = run_of(prepared, tmp_path, stage3(prepared, prepared / "base"), num_train_steps=2)
    stage = build_stage(config)
    whole = ComponentRef(str(prepared / "base"), KIND)
    assert stage.frozen[BASE] == stage.trained["adapter"].source == stage.export.lora.base == whole
    start = to_arrays(stage.trained["adapter"].load())
    stored = arrays_of(prepared / "base", KIND)
    for path in ("patch_embedding.kernel", "projections.kernel", "projections.bias"):
        np.testing.assert_array_equal(start[path], stored[path])
    model = train(config, quiet=True).model
    merged = arrays_of(model, KIND)
    assert (merged["blocks.ffn.up.kernel"] != stored["blocks.ffn.up.kernel"]).any()
    np.testing.assert_array_equal(merged["blocks.ffn.up.bias"], stored["blocks.ffn.up.bias"])


def test_bad_requests(prepared, trained):
    build = functools.partial(run_of, prepared, "")
    with pytest.raises(UserError, match="the adapter 'resnet' has no blocks of the DiT"):
        stage1(prepared, adapter=ResNetAdapterConfig(width=16))
    other = dataclasses.replace(stage3(prepared, trained.model), lora=LoRAConfig(rank=8))
    with pytest.raises(UserError, match=r"lora.rank=8 .*has rank 3 and 2: use the same"):
        build_stage(build(other))
    for rank, alpha in ((-1, 0), (0, 2), (2, -1), (2, float("nan")), (2, float("inf"))):
        with pytest.raises(UserError, match="expected"):
            LoRAConfig(rank=rank, alpha=alpha)
