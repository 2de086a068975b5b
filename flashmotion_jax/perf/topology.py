"""Device topologies for compiling ahead of time, without the devices."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import jax

from flashmotion_jax.models.attention import gpu_kernel
from flashmotion_jax.perf.gpu_target import target_config
from flashmotion_jax.runtime.devices import COMPILE_TARGETS, CompileTarget
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.private import private_module

#: Version of cuDNN to emit attention kernels for, as JAX encodes it.
CUDNN_VERSION = 91002

#: Topologies that are one Cloud TPU machine of 8 chips; all others consist of machines of 4.
_EIGHT_CHIP_HOSTS = ("v5e:2x4", "v6e:2x4")


@dataclass(frozen=True)
class Topology:
    """Devices to compile for.

    Attributes:
      name: As passed to `open_topology`.
      kind: Kind of each device.
      devices: Devices for a mesh; no array can be placed on them.
    """

    name: str
    kind: CompileTarget
    devices: list[Any]

    @property
    def num_hosts(self) -> int:
        """Number of machines that hold the devices."""
        return len({device.process_index for device in self.devices})


def prepare_environment() -> None:
    """Prepares for ahead-of-time compilation; call this before JAX looks for devices."""
    # Otherwise a plugin looks for its devices and fails.
    jax.config.update("jax_platforms", "cpu")
    # JAX cannot read programs for absent devices back from its cache, and would warn about each.
    jax.config.update("jax_enable_compilation_cache", False)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5p-8")  # libtpu warns without one
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def open_topology(name: str) -> Topology:
    """The devices of a topology.

    Args:
      name: Kind of device, a colon, and the shape of a TPU slice, the number of GPUs, or hosts x
        GPUs per host: "v5p:4x4x4", "v6e:8x8", "h200:8", "a100:2x8".

    Raises:
      UserError: There is no such topology.
      ImportError: The compiler for these devices is not installed.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    if not found or found.group(1) not in COMPILE_TARGETS:
        raise UserError(
            f"topology {name!r}; expected one of {', '.join(COMPILE_TARGETS)}, a colon and sizes, "
            "for instance v5p:4x4x4, v6e:8x8, h200:8 or a100:16"
        )
    kind, sizes = found.group(1), [int(size) for size in found.group(2).split("x")]
    if min(sizes) < 1:
        raise UserError(f"topology {name!r}; expected sizes of 1 and above")
    open_devices = _tpus if COMPILE_TARGETS[kind].platform == "tpu" else _gpus
    return Topology(name, COMPILE_TARGETS[kind], open_devices(name, kind, sizes))


def _tpus(name: str, kind: str, sizes: list[int]) -> list[Any]:
    options: dict[str, Any] = {}
    if math.prod(sizes) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    elif name in _EIGHT_CHIP_HOSTS:
        options["chips_per_host_bounds"] = (2, 4, 1)
    if kind == "v4":
        options["chip_config_name"] = "megacore"
    return _describe(name, "libtpu", platform="tpu", topology_name=name, **options)


def _gpus(name: str, kind: str, sizes: list[int]) -> list[Any]:
    if len(sizes) == 1:
        per_host = min(sizes[0], COMPILE_TARGETS[kind].devices_per_host)
        sizes = [-(-sizes[0] // per_host), per_host]
        if math.prod(sizes) != int(name.split(":")[1]):
            raise UserError(f"topology {name!r}; expected a multiple of {per_host}, whole hosts")
    if len(sizes) != 2:
        raise UserError(f"topology {name!r}; expected the number of GPUs, or hosts x GPUs per host")
    return _describe(
        name,
        "jax-cuda13-plugin and jax-cuda13-pjrt",
        platform="cuda",
        topology_name="unused",
        target_config=target_config(COMPILE_TARGETS[kind]),
        topology=f"1x{sizes[0]}x{sizes[1]}",
    )


def _describe(name: str, packages: str, **options: Any) -> list[Any]:
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(**options).devices)
    except (NotImplementedError, ImportError) as error:
        missing = str(error)
    except Exception as error:  # plugins raise types of their own
        missing = str(error)
        if not any(words in missing for words in ("libtpu", "not found", "Unknown platform")):
            raise UserError(f"topology {name!r}: {missing.splitlines()[0]}") from error
    raise ImportError(
        f"no compiler for {name} ({missing.splitlines()[0]}); install {packages}: "
        "pip install 'flashmotion_jax[plan]'"
    )


@contextlib.contextmanager
def target_kernels(topology: Topology) -> Generator[None]:
    """Emits attention kernels for these devices instead of those of this machine, if any.

    Args:
      topology: Devices to compile for; nothing changes unless they are GPUs.

    Raises:
      ImportError: This version of JAX cannot be told for which cuDNN to compile.
    """
    with contextlib.ExitStack() as stack:
        if topology.kind.platform == "gpu":
            stack.enter_context(_target_cudnn())
            if gpu_kernel() == "tokamax":
                stack.enter_context(_target_tokamax(topology))
        yield


@contextlib.contextmanager
def _target_cudnn() -> Generator[None]:
    # There is no public option for this.
    kernels: Any = private_module(
        "jax._src.cudnn.fused_attention_stablehlo",
        "check_cudnn_version",
        "plans for GPUs need it where cuDNN is not installed; with cuDNN installed, "
        "`_target_cudnn` can be removed",
    )
    known = kernels.check_cudnn_version
    kernels.check_cudnn_version = lambda: CUDNN_VERSION
    try:
        yield
    finally:
        kernels.check_cudnn_version = known


@contextlib.contextmanager
def _target_tokamax(topology: Topology) -> Generator[None]:
    import jax.extend.backend
    import tokamax  # pyrefly: ignore[missing-import]

    # tokamax chooses kernels by the default device, and has no other way to name one.
    known = jax.extend.backend.get_default_device
    jax.extend.backend.get_default_device = lambda: topology.devices[0]
    try:
        with tokamax.config.cross_compile(True):
            yield
    finally:
        jax.extend.backend.get_default_device = known
