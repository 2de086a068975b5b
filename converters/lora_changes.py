"""What a LoRA does to a weight.

With a strength s, W becomes W + s (W' - W), where W' is

    LoRA    W + alpha / rank * up @ down
    LoHa    W + alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b)
    LoKr    W + alpha / rank * kron(w1, w2), where w1 and w2 may be products too; a factor of one if
            neither is
    DoRA    V m / |V|, where V is one of the above, and |V| the norm of each row or column
    diff    W + diff

W has the shape of PyTorch, `[out, in]`, and the kernels of convolutions count as `[out, rest]`.

Source: arXiv:2106.09685 (LoRA), 2402.09353 (DoRA), 2309.14859 (LyCORIS: LoHa, LoKr).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flashmotion_jax.runtime.errors import UserError

from .tensors import Tensor

#: Parts that make a change, see `lora_keys.PARTS`. A part with a product in its place may be
#: given as that product: `lokr_w1` as `lokr_w1_a` and `lokr_w1_b`.
KINDS = {
    "LoRA": ("down", "up"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "LoKr": ("lokr_w1", "lokr_w2"),
    "difference": ("difference",),
    "new weight": ("new_weight",),
}


@dataclass(frozen=True)
class Change:
    """A change of a weight, a bias or another parameter.

    Attributes:
      kind: A name of `KINDS`.
      parts: Its tensors, and `magnitude` of a DoRA.
      factor: What the difference is multiplied with, in addition to the strength: alpha / rank.
    """

    kind: str
    parts: Mapping[str, Tensor]
    factor: float = 1.0

    @property
    def rank(self) -> int | None:
        """The inner dimension of its products, or None without one."""
        for part in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            if part in self.parts:
                return self.parts[part].shape[0]
        return None

    def check(self, shape: tuple[int, ...]) -> None:
        """Checks the shapes of its tensors.

        Args:
          shape: Of the weight.

        Raises:
          UserError: They do not fit each other or the weight.
        """
        shapes = {part: tensor.shape for part, tensor in self.parts.items()}
        for a, b in (("up", "down"), *_pairs("hada_w1", "hada_w2", "lokr_w1", "lokr_w2")):
            if a in shapes and (len(shapes[a]) < 2 or shapes[a][1] != shapes[b][0]):
                raise UserError(
                    f"{_show(a)} {list(shapes[a])} and {_show(b)} {list(shapes[b])} have different "
                    "ranks"
                )
        arrays = {part: jax.ShapeDtypeStruct(s, jnp.float32) for part, s in shapes.items()}
        try:
            found = jax.eval_shape(lambda arrays: self._changed_by(arrays), arrays).shape
        except (TypeError, ValueError) as error:
            sizes = ", ".join(f"{_show(part)} {list(s)}" for part, s in shapes.items())
            raise UserError(f"these shapes do not fit each other: {sizes}") from error
        if math.prod(found) != math.prod(shape) or (len(shape) > 1 and found[0] != shape[0]):
            raise UserError(f"it is made for {list(found)}, but the weight is {list(shape)}")
        size = math.prod(shapes.get("magnitude", ())) or 1
        if size not in (1, shape[0], math.prod(shape[1:])):
            raise UserError(
                f"{_show('magnitude')} {list(shapes['magnitude'])} is neither per row nor per "
                f"column of {list(shape)}"
            )

    def apply(
        self, weight: jax.Array, arrays: Mapping[str, jax.Array], strength: float
    ) -> jax.Array:
        """Changes a weight.

        Args:
          weight: float32, in the shape of PyTorch.
          arrays: `parts`, read, as float32.
          strength: Weight of the change.

        Returns:
          float32, in the same shape.
        """
        difference = self._changed_by(arrays).reshape(weight.shape)
        if self.kind == "new weight":
            return weight + strength * (difference - weight)
        difference = self.factor * difference
        if "magnitude" in arrays:
            changed = _rescale(weight + difference, arrays["magnitude"])
            return weight + strength * (changed - weight)
        return weight + strength * difference

    def _changed_by(self, arrays: Mapping[str, jax.Array]) -> jax.Array:
        """The difference (or the new weight) without any factor."""
        if self.kind == "LoRA":
            return _product(arrays["up"], arrays["down"])
        if self.kind == "LoHa":
            return _factor(arrays, "hada_w1") * _factor(arrays, "hada_w2")
        if self.kind == "LoKr":
            return jnp.kron(*(_as_matrix(_factor(arrays, f"lokr_{w}")) for w in ("w1", "w2")))
        return arrays[KINDS[self.kind][0]]


def find_kinds(parts: Mapping[str, Tensor]) -> list[str]:
    """The kinds of change that a module has some part of.

    Raises:
      UserError: Another part of such a change is missing.
    """
    found = []
    for kind, wanted in KINDS.items():
        present = [
            name
            for name in wanted
            if name in parts or any(f"{name}_{half}" in parts for half in "ab")
        ]
        missing = [name for name in wanted if name not in present]
        for name in present:
            halves = [f"{name}_{half}" for half in "ab"]
            if name not in parts:
                missing += [half for half in halves if half not in parts]
        if present and missing:
            raise UserError(f"it has {_show(present[0])} and lacks {_show(missing[0])}")
        if present:
            found.append(kind)
    return found


def parts_of(kind: str, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parts of a module that belong to a kind of change, without `magnitude`."""
    names = {full for name in KINDS[kind] for full in (name, f"{name}_a", f"{name}_b")}
    return {name: tensor for name, tensor in parts.items() if name in names}


def _rescale(weight: jax.Array, magnitude: jax.Array) -> jax.Array:
    """Gives each row (or column) of a weight the norm `magnitude`."""
    matrix = weight.reshape(weight.shape[0], -1)
    # PEFT stores [out], LyCORIS [out, 1] or, before its version 3, [1, in].
    is_column = magnitude.ndim > 1 and magnitude.shape[0] == 1 and matrix.shape[0] > 1
    norm = jnp.linalg.norm(matrix, axis=0 if is_column else 1, keepdims=True)
    scale = magnitude.reshape(norm.shape) / norm
    return (matrix * scale).reshape(weight.shape)


def _factor(arrays: Mapping[str, jax.Array], name: str) -> jax.Array:
    return arrays[name] if name in arrays else _product(arrays[f"{name}_a"], arrays[f"{name}_b"])


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    # The default precision of float32 matmuls on GPUs and TPUs has fewer bits.
    return jnp.matmul(_as_matrix(a), _as_matrix(b), precision=jax.lax.Precision.HIGHEST)


def _as_matrix(array: jax.Array) -> jax.Array:
    return array.reshape(array.shape[0], -1)


def _pairs(*names: str) -> list[tuple[str, str]]:
    return [(f"{name}_a", f"{name}_b") for name in names]


def _show(part: str) -> str:
    """The usual name of a part in files."""
    return {"down": "lora_down", "up": "lora_up", "magnitude": "dora_scale"}.get(part, part)
