"""GPUs as XLA's compiler describes them."""

from __future__ import annotations

from flashmotion_jax.runtime.devices import CompileTarget

#: A `stream_executor.GpuTargetConfigProto` in text format; the fixed limits are CUDA's own.
_TARGET = """\
platform_name: "CUDA"
device_description_str: "{gpu.name}"
dnn_version_info {{ major: 9 minor: 10 patch: 2 }}
gpu_device_info {{
  name: "{gpu.name}"
  device_vendor: "NVIDIA Corporation"
  device_memory_size: {gpu.memory}
  memory_bandwidth: {target.bandwidth}
  core_count: {gpu.num_cores}
  fpus_per_core: {gpu.fpus_per_core}
  clock_rate_ghz: {gpu.clock_ghz}
  l2_cache_size: {gpu.l2_cache}
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
  cuda_compute_capability {{
    major: {gpu.compute_capability} minor: 0 feature_extension: {features}
  }}
  driver_version: "13.0.0"
  runtime_version: "{cuda}"
  compile_time_toolkit_version: "{cuda}"
  dnn_version: "9.10.2"
  device_interconnect_info {{ active_links: {gpu.num_links} }}
}}
"""


def target_config(target: CompileTarget, cuda: str = "13.0.0") -> str:
    """The target configuration of a GPU, for `jax.experimental.topologies`.

    Args:
      target: A GPU of `COMPILE_TARGETS`.
      cuda: Version of CUDA.

    Raises:
      ValueError: The target is not a GPU.
    """
    gpu = target.gpu
    if gpu is None:
        raise ValueError(f"{target.device_kinds} is not a GPU")
    features = "ACCELERATED_FEATURES" if gpu.compute_capability >= 9 else "NONE"
    return _TARGET.format(target=target, gpu=gpu, features=features, cuda=cuda)
