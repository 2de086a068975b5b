from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.cli.convert import main
from flashmotion_jax.converters.mapping import make_entries
from flashmotion_jax.evaluation.features.conversion import table
from flashmotion_jax.evaluation.features.weight_files import load_network
from helpers.metric_tensors import SIZES, tensors


def written(folder, arrays, suffix):
    path = folder / f"weights{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    else:
        torch = pytest.importorskip("torch")
        torch.save({key: torch.from_numpy(array) for key, array in arrays.items()}, path)
    return path


@pytest.mark.parametrize("network", SIZES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_every_tensor_arrives(tmp_path, capsys, network, suffix):
    arrays = tensors(network)
    assert main(["metrics", str(written(tmp_path, arrays, suffix)), str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").iterdir()
    assert f"wrote {file}" in capsys.readouterr().out
    module = load_network(file, network)
    entries = flat_parameters(module)
    checked = set()
    for entry in make_entries(entries, table(network, list(entries))):
        for key, array in entry.scatter(np.asarray(entries[entry.target].get_value())):
            np.testing.assert_array_equal(array, arrays[key])
            checked.add(key)
    left = {key for key in arrays if key.startswith("fc.") or key.endswith("tracked")}
    assert checked == arrays.keys() - left


def test_all_problems_are_told_and_nothing_is_written(tmp_path, capsys):
    arrays = tensors("i3d")
    del arrays["Mixed_3b.b0.bn.running_mean"]
    arrays["Mixed_3b.b3b.bn.bias"] = np.full_like(arrays["Mixed_3b.b3b.bn.bias"], np.nan)
    arrays["other"] = np.ones(3, np.float32)
    path = written(tmp_path, arrays, ".safetensors")
    assert main(["metrics", str(path), str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    for words in ("3 problems", "missing: Mixed_3b.b0.bn.running_mean", "unused: other", "NaN"):
        assert words in message
    assert not (tmp_path / "out").exists()


def test_another_network_is_an_error(tmp_path, capsys):
    path = written(tmp_path, {"layer1.weight": np.ones(3, np.float32)}, ".safetensors")
    assert main(["metrics", str(path), str(tmp_path / "out")]) == 2
    assert "the file holds layer1.weight; expected the weights of" in capsys.readouterr().err
