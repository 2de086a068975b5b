"""Residual adapters as PyTorch code writes them: their files, read and compared with their code."""

from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config.adapters import ControlNetConfig, ResNetAdapterConfig
from flashmotion_jax.converters import adapters
from flashmotion_jax.converters.mapping import make_entries
from flashmotion_jax.converters.planning import Known, plan_contents
from flashmotion_jax.converters.recognition import recognize
from flashmotion_jax.converters.tensors import Tensor
from helpers import tiny

torch = pytest.importorskip("torch")
nn = torch.nn

WIDTH, DIT = 16, tiny.DIT


class Block(nn.Module):
    """A residual block before activation, as in diffusers."""

    def __init__(self, norm, conv, kernel, padding):
        super().__init__()
        self.norm1, self.norm2 = norm(), norm()
        self.conv1 = conv(WIDTH, WIDTH, kernel, padding=padding)
        self.conv2 = conv(WIDTH, WIDTH, kernel, padding=padding)

    def forward(self, x):
        hidden = self.conv1(nn.functional.silu(self.norm1(x)))
        return x + self.conv2(nn.functional.silu(self.norm2(hidden)))


class Adapter(nn.Module):
    """The adapter: `dims` is 2 for frames as a batch, 3 for convolutions of size one in time."""

    def __init__(self, dims, stem, norm):
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        time = () if dims == 2 else (1,)
        channels, kernel, stride, padding = stem
        self.dims, self.fold = dims, channels == 4 * 48
        self.conv_in = conv(
            channels,
            WIDTH,
            (*time, kernel, kernel),
            (*time, stride, stride),
            padding=(*(0 for _ in time), padding, padding),
        )
        block = (norm, conv, (*time, 3, 3), (*(0 for _ in time), 1, 1))
        self.blocks = nn.ModuleList(Block(*block) for _ in range(DIT.num_layers))
        self.zero_convs = nn.ModuleList(conv(WIDTH, DIT.dim, 1) for _ in range(DIT.num_layers))

    def forward(self, x):  # [T, C, h, w]
        if self.fold:
            x = nn.functional.pixel_unshuffle(x, 2)
        x = self.conv_in(x if self.dims == 2 else x.transpose(0, 1)[None])
        outputs = []
        for block, projection in zip(self.blocks, self.zero_convs, strict=True):
            x = block(x)
            out = projection(x)
            outputs.append(out if self.dims == 2 else out[0].transpose(0, 1))
        return torch.stack(outputs)  # [L, T, D, h / 2, w / 2]


class RMSNorm(nn.Module):
    """RMSNorm over the channels."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH, 1, 1))

    def forward(self, x):
        scale = torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)
        return x * scale * self.gamma.reshape(-1, *[1] * (x.ndim - 2))


def group_norm():
    return nn.GroupNorm(8, WIDTH, eps=1e-6)


STEMS = {
    "patches": (48, 2, 2, 0),
    "strided 3x3": (48, 3, 2, 1),
    "strided 1x1": (48, 1, 2, 0),
    "folded 1x1": (192, 1, 1, 0),
    "folded 3x3": (192, 3, 1, 1),
}


def plan_of(adapter, *assignments):
    tensors = {
        f"module.resnet_adapter.{key}": Tensor(
            tuple(value.shape), "float32", lambda value=value: value.detach().numpy()
        )
        for key, value in adapter.state_dict().items()
    }
    known = Known(dtype="float32", dit=DIT, assignments=assignments)
    (plan,) = plan_contents(recognize(tensors), known)
    assert plan.problems() == []
    return plan


def exported(plan):
    """The plan of the file that the adapter is exported to."""
    abstract = components.abstract_module(plan.kind, plan.config, "float32", DIT)
    entries = make_entries(
        components.flat_parameters(abstract), adapters.table("resnet", plan.config, DIT, {})
    )
    arrays = {entry.target: entry.gather(plan.source) for entry in plan.entries}
    tensors = {
        key: Tensor(array.shape, "float32", lambda array=array: array)
        for entry in entries
        for key, array in entry.scatter(arrays[entry.target])
    }
    assignments = [f"num_groups={plan.config.num_groups}"]
    known = Known(dtype="float32", dit=DIT, assignments=assignments)
    (again,) = plan_contents(recognize(tensors), known)
    assert again.problems() == []
    for entry in again.entries:
        np.testing.assert_array_equal(entry.gather(again.source), arrays[entry.target])
    return again


def run(plan, latents):
    """The adapter's residuals `[L, T, P, D]`."""
    module = components.abstract_module(plan.kind, plan.config, "float32", plan.dit_config)
    for name, variable in components.flat_parameters(module).items():
        entry = next(entry for entry in plan.entries if entry.target == name)
        variable.set_value(entry.gather(plan.source))
    features = np.asarray(module.prepare(latents, None))[:, 0]
    projection = module.blocks.projection
    kernel, bias = np.asarray(projection.kernel), np.asarray(projection.bias)
    return np.einsum("ltpc,lcd->ltpd", features, kernel) + bias[:, None, None]


#: Every stem, and every norm between 2-D and 3-D convolutions.
VARIANTS = [
    *((stem, 2, RMSNorm) for stem in STEMS),
    ("strided 3x3", 2, group_norm),
    ("strided 3x3", 3, group_norm),
    ("folded 3x3", 3, RMSNorm),
]


@pytest.mark.parametrize(("stem", "dims", "norm"), VARIANTS)
def test_variants(stem, dims, norm):
    torch.manual_seed(0)
    adapter = Adapter(dims, STEMS[stem], norm)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    is_group = norm is group_norm
    plan = plan_of(adapter, *(("num_groups=8",) if is_group else ()))
    assert plan.config == ResNetAdapterConfig(
        width=WIDTH,
        norm={(False, 2): "rms", (False, 3): "rms", (True, 2): "group"}.get(
            (is_group, dims), "group_video"
        ),
        num_groups=8 if is_group else 32,
        stem_kernel=1 if stem == "patches" else STEMS[stem][1],
        stem_strided=stem.startswith("strided"),
    )
    assert any("num_groups=N" in line for line in plan.notices) == is_group
    assert any("stem" in line or "folded" in line for line in plan.notices) == (stem != "patches")
    assert exported(plan).config == plan.config
    latents = np.array(tiny.normal(3, 1, 2, 4, 6, 48))
    with torch.no_grad():
        expected = adapter(torch.from_numpy(np.moveaxis(latents[0], -1, 1).copy())).numpy()
    expected = expected.reshape(*expected.shape[:3], -1).swapaxes(2, 3)
    np.testing.assert_allclose(run(plan, latents), expected, atol=2e-5)


def test_a_group_norm_over_all_frames_is_a_choice():
    adapter = Adapter(2, STEMS["patches"], group_norm)
    assert plan_of(adapter, "norm=group_video").config.norm == "group_video"


def test_controlnet_with_swapped_channels():
    """Swapping the order is the same as swapping what is given."""

    def carry(order, latents, trajectory):
        abstract = components.abstract_module(
            "adapters/controlnet", ControlNetConfig(input=order), "float32", DIT
        )
        module = tiny.random_weights(abstract)
        prepared = module.prepare(trajectory, tiny.normal(5, 1, 4, DIT.text_dim))
        return module(prepared, latents, tiny.normal(4, 1, 2), 1.0).carry

    a, b = tiny.normal(1, 1, 2, 4, 6, 48), tiny.normal(2, 1, 2, 4, 6, 48)
    np.testing.assert_array_equal(
        carry("latents+trajectory", a, b), carry("trajectory+latents", b, a)
    )
