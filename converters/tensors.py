"""What the readers of files return: tensors that are read on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax  # noqa: F401  # teaches numpy the names "bfloat16" and "float8_e4m3fn"
import numpy as np


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    Attributes:
      shape: Shape of the tensor.
      dtype: Name of its dtype in NumPy, or the file's own name where NumPy has none.
      read: Reads the array.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


StateDict = Mapping[str, Tensor]
"""Key -> tensor that is read on demand, of one or several files."""


@dataclass(frozen=True)
class WeightFile:
    """The contents of a file of weights.

    Attributes:
      tensors: As they are stored; `quantized.dequantize` turns 8 bits into floats.
      metadata: What the file says beside them: the strings of safetensors, the fields of GGUF.
    """

    tensors: StateDict
    metadata: Mapping[str, Any] = field(default_factory=dict)
