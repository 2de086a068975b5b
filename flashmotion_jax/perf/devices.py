"""What devices can do, as their makers say: the figures of a plan."""

from __future__ import annotations

from typing import Literal, NamedTuple

GB, GIB = 10**9, 2**30

#: Of a GPU's memory, what a run can have; the rest is of CUDA, cuDNN and NCCL.
GPU_SHARE = 0.92


class DeviceKind(NamedTuple):
    """One kind of device.

    Attributes:
      platform: what compiles for it.
      memory: bytes that a program can use.
      bandwidth: bytes a second, of its memory.
      link: bytes a second that it sends to devices of its host, or of a TPU's slice.
      network: bytes a second that it sends to devices of other hosts; a slice is one network.
      devices_per_host: of the machines that are rented.
      source: of the figures.
    """

    platform: Literal["tpu", "gpu"]
    memory: int
    bandwidth: float
    link: float
    network: float
    devices_per_host: int
    source: str


#: By the name that a topology begins with. A TPU's memory is what its compiler allows; its link is
#: half of the two-way figure, all links of a chip together. A GPU's link is NVLink's, one way; its
#: network is that of the usual host of 8 with one adapter a GPU (200 Gb/s of A100s, else 400).
KINDS = {
    "v4": DeviceKind(
        *("tpu", int(30.75 * GIB), 1200 * GB, 300 * GB, 300 * GB, 4),
        "cloud.google.com/tpu/docs/v4; as megacore, one device a chip",
    ),
    "v5e": DeviceKind(
        *("tpu", int(15.75 * GIB), 819 * GB, 200 * GB, 200 * GB, 4),
        "cloud.google.com/tpu/docs/v5e",
    ),
    "v5p": DeviceKind(
        *("tpu", int(95.74 * GIB), 2765 * GB, 600 * GB, 600 * GB, 4),
        "cloud.google.com/tpu/docs/v5p",
    ),
    "v6e": DeviceKind(
        *("tpu", int(31.25 * GIB), 1640 * GB, 400 * GB, 400 * GB, 4),
        "cloud.google.com/tpu/docs/v6e",
    ),
    "a100": DeviceKind(
        *("gpu", int(GPU_SHARE * 85_100_068_864), 2039 * GB, 300 * GB, 25 * GB, 8),
        "NVIDIA A100 80GB SXM data sheet; DGX A100",
    ),
    "h100": DeviceKind(
        *("gpu", int(GPU_SHARE * 84_942_979_072), 3350 * GB, 450 * GB, 50 * GB, 8),
        "NVIDIA H100 SXM data sheet; DGX H100",
    ),
    "h200": DeviceKind(
        *("gpu", int(GPU_SHARE * 151_397_597_184), 4800 * GB, 450 * GB, 50 * GB, 8),
        "NVIDIA H200 SXM data sheet; DGX H200",
    ),
}


class GPU(NamedTuple):
    """What XLA must know of a GPU that is not there.

    Attributes:
      name: as its driver tells it.
      memory: bytes.
      bandwidth: bytes a second.
      cores: streaming multiprocessors.
      lanes: float32 units of a multiprocessor.
      shared_memory: bytes of a multiprocessor.
      block_memory: bytes of it that a block may ask for.
      cache: bytes of the second level.
      clock: GHz.
      capability: of CUDA.
      links: of NVLink.
    """

    name: str
    memory: int
    bandwidth: int
    cores: int
    lanes: int
    shared_memory: int
    block_memory: int
    cache: int
    clock: float
    capability: int
    links: int


_HOPPER = (132, 128, 233472, 232448, 52428800, 1.98, 9, 18)
GPUS = {
    "a100": GPU(
        *("NVIDIA A100-SXM4-80GB", 85_100_068_864, 2_039_000_000_000),
        *(108, 64, 167936, 166912, 41943040, 1.41, 8, 12),
    ),
    "h100": GPU("NVIDIA H100 80GB HBM3", 84_942_979_072, 3_352_000_000_000, *_HOPPER),
    "h200": GPU("NVIDIA H200", 151_397_597_184, 4_800_000_000_000, *_HOPPER),
}

#: A `stream_executor.GpuTargetConfigProto` as text; what all of them share is CUDA's own limits.
_TARGET = """\
platform_name: "CUDA"
device_description_str: "{gpu.name}"
dnn_version_info {{ major: 9 minor: 10 patch: 2 }}
gpu_device_info {{
  name: "{gpu.name}"
  device_vendor: "NVIDIA Corporation"
  device_memory_size: {gpu.memory}
  memory_bandwidth: {gpu.bandwidth}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.lanes}
  clock_rate_ghz: {gpu.clock}
  l2_cache_size: {gpu.cache}
  shared_memory_per_core: {gpu.shared_memory}
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {gpu.block_memory}
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  device_address_bits: 64
  cuda_compute_capability {{ major: {gpu.capability} minor: 0 feature_extension: {features} }}
  driver_version: "13.0.0"
  runtime_version: "{cuda}"
  compile_time_toolkit_version: "{cuda}"
  dnn_version: "9.10.2"
  device_interconnect_info {{ active_links: {gpu.links} }}
}}
"""


def target_config(gpu: GPU, cuda: str = "13.0.0") -> str:
    """A GPU in the words of XLA."""
    features = "ACCELERATED_FEATURES" if gpu.capability >= 9 else "NONE"
    return _TARGET.format(gpu=gpu, features=features, cuda=cuda)
