"""The networks of FID and FVD: the published PyTorch weights to files named by their sha256.

Inception: `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid, the same file that torch-fidelity
names `weights-inception-2015-12-05-6726825d.pth`. I3D: `i3d_pretrained_400.pt` of VideoGPT, or any
other file with the keys of `pytorch_i3d`. The classifier of Inception is left out. A TorchScript
archive, such as StyleGAN-V's, is a program and is rejected.
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.converters.mapping import Row, find_bad_values, find_problems, make_entries
from flashmotion_jax.converters.reader import read_file
from flashmotion_jax.converters.tensors import StateDict
from flashmotion_jax.converters.wrappers import strip_holders
from flashmotion_jax.evaluation.features.weight_files import (
    Network,
    abstract_network,
    save_network,
)
from flashmotion_jax.runtime.errors import UserError

#: A key that a network has and the other does not; and the output channels of the published one.
SIGNATURES: dict[Network, tuple[str, int]] = {
    "inception": ("Conv2d_1a_3x3.conv.weight", 32),
    "i3d": ("Conv3d_1a_7x7.conv3d.weight", 64),
}

#: What the files hold beside what features are made with.
_LEFT_OUT = ("fc.", "AuxLogits.")

#: Our name of a parameter -> the name of its module and of itself in PyTorch.
_NAMES: dict[Network, dict[str, str]] = {
    "inception": {
        "kernel": "conv.weight",
        "scale": "bn.weight",
        "bias": "bn.bias",
        "mean": "bn.running_mean",
        "variance": "bn.running_var",
    },
    "i3d": {
        "kernel": "conv3d.weight",
        "scale": "bn.weight",
        "bias": "bn.bias",
        "mean": "bn.running_mean",
        "variance": "bn.running_var",
    },
}


def convert_metrics(source: str, destination: Path) -> str:
    """Converts the weights of Inception or I3D.

    Args:
      source: .pth, .pt or .safetensors.
      destination: output folder, created if it does not exist.

    Returns:
      What was written.

    Raises:
      UserError: the file is another network's; the message lists every problem.
      ImportError: a torch file, and torch is not installed.
    """
    tensors = select(strip_holders(read_file(Path(source))))
    network = recognize(tensors)
    key, width = SIGNATURES[network]
    sizes = {"divide": max(width // max(tensors[key].shape[0], 1), 1)}
    if network == "i3d" and "logits.conv3d.bias" in tensors:
        sizes["classes"] = tensors["logits.conv3d.bias"].shape[0]
    entries = make_entries(
        abstract := flat_parameters(abstract_network(network, **sizes)),
        table(network, list(abstract)),
    )
    problems = find_problems(entries, tensors)
    problems += [
        problem
        for entry in tqdm(entries, f"checking {network}", disable=None)
        for problem in find_bad_values(entry, tensors)
    ]
    if problems:
        raise UserError(
            f"{source}: {len(problems)} problems; nothing was written:\n  " + "\n  ".join(problems)
        )
    arrays = {entry.target: entry.gather(tensors) for entry in entries}
    return f"wrote {save_network(destination, network, arrays)}"


def select(tensors: StateDict) -> StateDict:
    """What features are made with: without the classifier, and without counters of batches."""
    return {
        key: tensor
        for key, tensor in tensors.items()
        if not key.startswith(_LEFT_OUT) and not key.endswith("num_batches_tracked")
    }


def recognize(tensors: StateDict) -> Network:
    """Which network the tensors are.

    Raises:
      UserError: neither.
    """
    for network, (key, _) in SIGNATURES.items():
        if key in tensors:
            return network
    first = ", ".join(sorted(tensors)[:3]) or "nothing"
    expected = " or ".join(key for key, _ in SIGNATURES.values())
    raise UserError(
        f"the file holds {first}; expected the weights of Inception or I3D, with a key {expected}"
    )


def table(network: Network, targets: list[str]) -> list[Row]:
    """A row for each of our parameters: the module's name is the same in PyTorch."""
    rows = []
    for target in targets:
        module, _, leaf = target.rpartition(".")
        if module == "logits":
            name = "logits.conv3d." + {"kernel": "weight", "bias": "bias"}[leaf]
        else:
            # Without our name of the group of modules, `stem` or `blocks`.
            name = f"{module.partition('.')[2]}.{_NAMES[network][leaf]}"
        rows.append(Row(target, name))
    return rows
