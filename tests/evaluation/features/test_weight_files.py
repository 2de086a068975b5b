from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.converters.mapping import make_entries
from flashmotion_jax.evaluation.features.conversion import table
from flashmotion_jax.evaluation.features.weight_files import (
    abstract_network,
    load_network,
    save_network,
)

GOLDEN = Path(__file__).parent / "golden" / "metric_networks.npz"

#: Small networks, and odd input sizes, which test the padding.
SIZES = {"inception": {"divide": 16}, "i3d": {"divide": 16, "classes": 10}}
INPUTS = {"inception": (2, 99, 107, 3), "i3d": (1, 11, 224, 224, 3)}


def keys(network, **sizes):
    """The published keys and their shapes."""
    abstract = flat_parameters(abstract_network(network, **sizes))
    entries = make_entries(abstract, table(network, list(abstract)))
    return {entry.keys[0]: entry.source_shape for entry in entries}


def inputs(network):
    values = np.random.default_rng(1).uniform(-1, 1, INPUTS[network])
    return values.astype(np.float32)


def drawn(network, seed=0):
    """Random weights by numpy, so that no torch is needed."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, variable in flat_parameters(abstract_network(network, **SIZES[network])).items():
        noise = rng.standard_normal(variable.get_value().shape).astype(np.float32)
        if name.endswith("kernel"):
            noise *= np.sqrt(2 / np.prod(noise.shape[:-1]))
        elif name.endswith("variance"):
            noise = 0.5 + np.abs(noise)
        elif name.endswith("scale"):
            noise = 1 + 0.1 * noise
        else:
            noise *= 0.1
        arrays[name] = noise
    return arrays


def features(folder, network):
    module = load_network(save_network(folder, network, drawn(network)), network)
    return np.asarray(jax.jit(lambda module, x: module(x))(module, inputs(network)))


def as_torch(network, arrays):
    import torch

    abstract = flat_parameters(abstract_network(network, **SIZES[network]))
    entries = make_entries(abstract, table(network, list(abstract)))
    return {
        key: torch.from_numpy(np.ascontiguousarray(array))
        for entry in entries
        for key, array in entry.scatter(arrays[entry.target])
    }


def reference(network, arrays, x):
    torch = pytest.importorskip("torch")
    from helpers import metric_networks_torch

    kind = {"inception": metric_networks_torch.Inception, "i3d": metric_networks_torch.I3D}
    with torch.no_grad():
        x = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
        return kind[network](as_torch(network, arrays))(x).numpy()


@pytest.mark.parametrize("network", SIZES)
def test_features_match_pytorch(tmp_path, network):
    found = features(tmp_path, network)
    expected = reference(network, drawn(network), inputs(network))
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("network", SIZES)
def test_features_match_the_stored_ones_of_pytorch(tmp_path, network):
    with np.load(GOLDEN) as golden:
        expected = golden[network]
    np.testing.assert_allclose(
        features(tmp_path, network), expected, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize(
    "network, number, example",
    [
        ("inception", 21_785_568, ("Mixed_7c.branch3x3dbl_3b.conv.weight", (384, 384, 3, 1))),
        ("i3d", 12_697_264, ("Mixed_5c.b1b.conv3d.weight", (384, 192, 3, 3, 3))),
    ],
)
def test_the_published_sizes(network, number, example):
    shapes = keys(network)
    learned = {key: shape for key, shape in shapes.items() if "running" not in key}
    assert sum(int(np.prod(shape)) for shape in learned.values()) == number
    assert shapes[example[0]] == example[1]


@pytest.mark.slow
@pytest.mark.parametrize("network", SIZES)
def test_features_at_full_width_match_pytorch(tmp_path, monkeypatch, network):
    monkeypatch.setitem(SIZES, network, {})
    test_features_match_pytorch(tmp_path, network)


def test_damaged_renamed_and_other_files_raise(tmp_path):
    file = save_network(tmp_path, "i3d", drawn("i3d"))
    assert save_network(tmp_path / "again", "i3d", drawn("i3d")).name == file.name
    assert load_network(tmp_path, "i3d").logits.bias[...].shape == (10,)
    with pytest.raises(ValueError, match="there is none"):
        load_network(tmp_path, "inception")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"\1")
    with pytest.raises(ValueError, match="damaged or renamed"):
        load_network(file, "i3d")
    file.write_bytes(whole)
    other = file.with_name(file.name.replace("i3d", "inception"))
    other.write_bytes(whole)
    with pytest.raises(ValueError, match="is not a file of inception"):
        load_network(other, "inception")
    (tmp_path / f"i3d-{'0' * 64}.npz").write_bytes(whole)
    with pytest.raises(ValueError, match="2 of them"):
        load_network(tmp_path, "i3d")


if __name__ == "__main__":
    np.savez(GOLDEN, **{name: reference(name, drawn(name), inputs(name)) for name in SIZES})
