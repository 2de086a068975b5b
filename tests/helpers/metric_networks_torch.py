"""Inception and I3D in PyTorch, written for the tests: functions of a state dict, no modules.

The keys are those of the published files; what follows what is written down once more here, so that
a mistake in a table of ours is not made twice.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def random_state(shapes, seed=0):
    """A state dict with the statistics of a trained network, for keys with these shapes."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        value = torch.randn(tuple(shape), generator=generator)
        if key.endswith(("conv.weight", "conv3d.weight")):
            value *= (2 / value[0].numel()) ** 0.5
        elif key.endswith("running_var"):
            value = 0.5 + value.abs()
        elif key.endswith("bn.weight"):
            value = 1 + 0.1 * value
        else:
            value *= 0.1
        state[key] = value
    return state


class Inception:
    """FID's Inception v3, up to the last pooling."""

    def __init__(self, state):
        self.state = state

    def conv(self, x, name, padding=0, stride=1):
        state = {key: self.state[f"{name}.{key}"] for key in ("conv.weight",)}
        x = functional.conv2d(x, state["conv.weight"], None, stride, padding)
        statistics = [self.state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var")]
        affine = [self.state[f"{name}.bn.{key}"] for key in ("weight", "bias")]
        return functional.relu(functional.batch_norm(x, *statistics, *affine, eps=0.001))

    def chain(self, x, prefix, *steps):
        for name, *options in steps:
            x = self.conv(x, f"{prefix}.{name}", *options)
        return x

    def average(self, x, prefix):
        pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return self.conv(pooled, f"{prefix}.branch_pool")

    def a(self, x, name):
        double = [("branch3x3dbl_1",), ("branch3x3dbl_2", 1), ("branch3x3dbl_3", 1)]
        return torch.cat(
            [
                self.conv(x, f"{name}.branch1x1"),
                self.chain(x, name, ("branch5x5_1",), ("branch5x5_2", 2)),
                self.chain(x, name, *double),
                self.average(x, name),
            ],
            1,
        )

    def b(self, x, name):
        double = [("branch3x3dbl_1",), ("branch3x3dbl_2", 1), ("branch3x3dbl_3", 0, 2)]
        return torch.cat(
            [
                self.conv(x, f"{name}.branch3x3", 0, 2),
                self.chain(x, name, *double),
                functional.max_pool2d(x, 3, 2),
            ],
            1,
        )

    def c(self, x, name):
        row, column = (0, 3), (3, 0)
        single = [("branch7x7_1",), ("branch7x7_2", row), ("branch7x7_3", column)]
        double = [("branch7x7dbl_1",)]
        double += [(f"branch7x7dbl_{i}", column if i % 2 == 0 else row) for i in range(2, 6)]
        return torch.cat(
            [
                self.conv(x, f"{name}.branch1x1"),
                self.chain(x, name, *single),
                self.chain(x, name, *double),
                self.average(x, name),
            ],
            1,
        )

    def d(self, x, name):
        seven = [("branch7x7x3_1",), ("branch7x7x3_2", (0, 3)), ("branch7x7x3_3", (3, 0))]
        return torch.cat(
            [
                self.chain(x, name, ("branch3x3_1",), ("branch3x3_2", 0, 2)),
                self.chain(x, name, *seven, ("branch7x7x3_4", 0, 2)),
                functional.max_pool2d(x, 3, 2),
            ],
            1,
        )

    def e(self, x, name, last):
        three = self.conv(x, f"{name}.branch3x3_1")
        double = self.chain(x, name, ("branch3x3dbl_1",), ("branch3x3dbl_2", 1))
        if last:
            pooled = functional.max_pool2d(x, 3, 1, 1)
            pooled = self.conv(pooled, f"{name}.branch_pool")
        else:
            pooled = self.average(x, name)
        return torch.cat(
            [
                self.conv(x, f"{name}.branch1x1"),
                self.conv(three, f"{name}.branch3x3_2a", (0, 1)),
                self.conv(three, f"{name}.branch3x3_2b", (1, 0)),
                self.conv(double, f"{name}.branch3x3dbl_3a", (0, 1)),
                self.conv(double, f"{name}.branch3x3dbl_3b", (1, 0)),
                pooled,
            ],
            1,
        )

    def __call__(self, x):
        x = self.conv(x, "Conv2d_1a_3x3", 0, 2)
        x = self.conv(self.conv(x, "Conv2d_2a_3x3"), "Conv2d_2b_3x3", 1)
        x = functional.max_pool2d(x, 3, 2)
        x = self.conv(self.conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3")
        x = functional.max_pool2d(x, 3, 2)
        for letter in "bcd":
            x = self.a(x, f"Mixed_5{letter}")
        x = self.b(x, "Mixed_6a")
        for letter in "bcde":
            x = self.c(x, f"Mixed_6{letter}")
        x = self.d(x, "Mixed_7a")
        x = self.e(self.e(x, "Mixed_7b", False), "Mixed_7c", True)
        return x.mean((2, 3))


class I3D:
    """FVD's I3D, to its logits."""

    def __init__(self, state, eps=1e-5):
        self.state, self.eps = state, eps

    @staticmethod
    def pad(x, kernel, stride):
        """Zeros so that every `stride`-th place has a window, the odd one at the end."""
        sizes = []
        for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
            missing = max((-(-size // s) - 1) * s + k - size, 0)
            sizes += [missing // 2, missing - missing // 2]
        return functional.pad(x, sizes)

    def conv(self, x, name, kernel=1, stride=1):
        x = self.pad(x, (kernel,) * 3, (stride,) * 3)
        x = functional.conv3d(x, self.state[f"{name}.conv3d.weight"], stride=stride)
        statistics = [self.state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var")]
        affine = [self.state[f"{name}.bn.{key}"] for key in ("weight", "bias")]
        return functional.relu(functional.batch_norm(x, *statistics, *affine, eps=self.eps))

    def pool(self, x, kernel, stride):
        return functional.max_pool3d(self.pad(x, kernel, stride), kernel, stride)

    def mixed(self, x, name):
        pooled = self.pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat(
            [
                self.conv(x, f"{name}.b0"),
                self.conv(self.conv(x, f"{name}.b1a"), f"{name}.b1b", 3),
                self.conv(self.conv(x, f"{name}.b2a"), f"{name}.b2b", 3),
                self.conv(pooled, f"{name}.b3b"),
            ],
            1,
        )

    def __call__(self, x):
        x = self.conv(x, "Conv3d_1a_7x7", 7, 2)
        x = self.pool(x, (1, 3, 3), (1, 2, 2))
        x = self.conv(self.conv(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3", 3)
        x = self.pool(x, (1, 3, 3), (1, 2, 2))
        x = self.mixed(self.mixed(x, "Mixed_3b"), "Mixed_3c")
        x = self.pool(x, (3, 3, 3), (2, 2, 2))
        for letter in "bcdef":
            x = self.mixed(x, f"Mixed_4{letter}")
        x = self.pool(x, (2, 2, 2), (2, 2, 2))
        x = self.mixed(self.mixed(x, "Mixed_5b"), "Mixed_5c")
        x = functional.avg_pool3d(x, (2, 7, 7), 1)
        weight, bias = (self.state[f"logits.conv3d.{key}"] for key in ("weight", "bias"))
        return functional.conv3d(x, weight, bias).mean((2, 3, 4))
