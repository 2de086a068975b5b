"""The table of accelerators: published peak speeds, and what compiling ahead of time needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import jax

GB, GIB, TERA = 10**9, 2**30, 10**12

#: Share of a GPU's memory that a program can use; CUDA, cuDNN and NCCL take the rest.
GPU_SHARE = 0.92


@dataclass(frozen=True)
class Accelerator:
    """One kind of accelerator.

    Attributes:
      device_kinds: Words that `jax.Device.device_kind` contains.
      peak_flops: Dense bfloat16 FLOP/s from the data sheet; None if there is no such number.
    """

    device_kinds: tuple[str, ...]
    peak_flops: float | None


@dataclass(frozen=True)
class GpuTarget:
    """What XLA must know to compile for a GPU that is not attached.

    Attributes:
      name: As the driver reports it.
      memory: Bytes.
      num_cores: Streaming multiprocessors.
      fpus_per_core: float32 units of a multiprocessor.
      shared_memory: Bytes of a multiprocessor.
      block_memory: Bytes of it that a block may request.
      l2_cache: Bytes.
      clock_ghz: Clock rate in GHz.
      compute_capability: CUDA's major version.
      num_links: NVLink links.
    """

    name: str
    memory: int
    num_cores: int
    fpus_per_core: int
    shared_memory: int
    block_memory: int
    l2_cache: int
    clock_ghz: float
    compute_capability: int
    num_links: int


@dataclass(frozen=True)
class CompileTarget(Accelerator):
    """An accelerator that `flashmotion plan` can compile for.

    Attributes:
      platform: Compiler.
      memory: Bytes that a program can use.
      bandwidth: Bytes/s between memory and compute units.
      link: Bytes/s sent to devices of the same host, or of the same TPU slice.
      network: Bytes/s sent to devices of other hosts; a TPU slice is one network.
      devices_per_host: Devices of a machine as clouds rent it out.
      source: Where the numbers come from.
      gpu: For XLA; None on TPUs.
    """

    peak_flops: float
    platform: Literal["cpu", "gpu", "tpu"]
    memory: int
    bandwidth: float
    link: float
    network: float
    devices_per_host: int
    source: str
    gpu: GpuTarget | None = None


def _tpu(
    kinds: tuple[str, ...],
    peak: float,
    memory_gib: float,
    bandwidth_gb: int,
    link_gb: int,
    doc: str,
) -> CompileTarget:
    memory, link = int(memory_gib * GIB), link_gb * GB
    source = f"cloud.google.com/tpu/docs/{doc}"
    return CompileTarget(kinds, peak, "tpu", memory, bandwidth_gb * GB, link, link, 4, source)


def _gpu(
    kind: str, peak: float, bandwidth_gb: int, link_gb: int, network_gb: int, gpu: GpuTarget
) -> CompileTarget:
    memory = int(GPU_SHARE * gpu.memory)
    rates = bandwidth_gb * GB, link_gb * GB, network_gb * GB
    source = f"NVIDIA {kind} SXM data sheet; DGX {kind.split()[0]}"
    return CompileTarget((kind.split()[0],), peak, "gpu", memory, *rates, 8, source, gpu)


_A100 = (108, 64, 167936, 166912, 41943040, 1.41, 8, 12)
_HOPPER = (132, 128, 233472, 232448, 52428800, 1.98, 9, 18)

#: By name; a topology begins with the name of a `CompileTarget`. `peak_flops` takes the first row
#: whose words fit, so a row stands before those whose words it contains.
#:
#: A TPU's memory is what its compiler allows; its link is half of the bidirectional number, over
#: all links of a chip. A GPU's link is NVLink in one direction; its network is that of a DGX host,
#: one adapter for each GPU (200 Gb/s for A100, else 400).
ACCELERATORS = {
    "mig": Accelerator(("MIG",), None),  # a slice of a GPU has no number of its own
    "a100": _gpu(
        *("A100 80GB", 312e12, 2039, 300, 25),
        GpuTarget("NVIDIA A100-SXM4-80GB", 85_100_068_864, *_A100),
    ),
    "h100-pcie": Accelerator(("H100 PCIe",), 756e12),
    "h100-nvl": Accelerator(("H100 NVL",), 835e12),
    "h100": _gpu(
        *("H100", 989e12, 3350, 450, 50),
        GpuTarget("NVIDIA H100 80GB HBM3", 84_942_979_072, *_HOPPER),
    ),
    "h200-nvl": Accelerator(("H200 NVL",), 835e12),
    "h200": _gpu(
        *("H200", 989e12, 4800, 450, 50), GpuTarget("NVIDIA H200", 151_397_597_184, *_HOPPER)
    ),
    "gh200": Accelerator(("GH200",), 989e12),
    "b200": Accelerator(("B200",), 2250e12),
    "l4": Accelerator(("L4",), 121e12),
    # As megacore: both cores of a chip are one device.
    "v4": _tpu(("TPU v4",), 275e12, 30.75, 1200, 300, "v4"),
    "v5e": _tpu(("TPU v5 lite", "TPU v5e"), 197e12, 15.75, 819, 200, "v5e"),
    "v5p": _tpu(("TPU v5", "TPU v5p"), 459e12, 95.74, 2765, 600, "v5p"),
    "v6e": _tpu(("TPU v6 lite", "TPU v6e"), 918e12, 31.25, 1640, 400, "v6e"),
    "v7x": Accelerator(("TPU7x",), 1153.5e12),  # a chip of 2307e12 is two devices
}

#: Those of `ACCELERATORS` that a plan can be for.
COMPILE_TARGETS = {
    name: one for name, one in ACCELERATORS.items() if isinstance(one, CompileTarget)
}


def peak_flops(device: jax.Device) -> float | None:
    """Dense bfloat16 FLOP/s of a device from its data sheet; None if not known."""
    for accelerator in ACCELERATORS.values():
        words = "|".join(accelerator.device_kinds)
        if re.search(rf"\b({words})\b", device.device_kind):
            return accelerator.peak_flops
    return None
