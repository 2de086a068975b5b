"""Measurements of tiny models."""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.cli import main as cli
from flashmotion_jax.config import OptimizerConfig
from flashmotion_jax.perf import bench, measure, peer, sizes
from flashmotion_jax.perf.programs import PlannedProgram
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.runtime.sharding import make_mesh
from flashmotion_jax.training.train_state import create_train_state
from helpers import tiny


def planned(function, *args, donated=(), runs=1):
    compiled = program(function, donate_argnames=donated)
    return PlannedProgram("toy", runs, compiled, args, {}, 2e6, 1e6, 0)


def test_arguments_are_filled_as_programs_need_them():
    abstract = (
        jax.ShapeDtypeStruct((4, 8), jnp.bfloat16),
        jax.ShapeDtypeStruct((3,), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.float32),
        jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2)),
    )
    weights, ids, level, keys = measure.fill(abstract)
    assert weights.dtype == jnp.bfloat16 and 0 < float(jnp.abs(weights).max()) < 0.2
    np.testing.assert_array_equal(ids, [1, 1, 1])
    assert 0 < float(level) < 1
    assert keys.shape == (2,) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)


def test_a_player_begins_without_moments():
    player = jax.eval_shape(
        lambda: create_train_state(tiny.make_dit(), OptimizerConfig(learning_rate=1e-3))
    )
    filled = measure.fill(player)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(filled.opt_state))
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(filled.params))


def test_what_a_run_uses_up_the_next_gets_from_its_result():
    seen = []

    def step(state, x):
        jax.debug.callback(lambda total: seen.append(float(total)), state["total"])
        return {"total": state["total"] + x.sum() * 0 + 1}, x

    abstract = {"total": jax.ShapeDtypeStruct((), jnp.float32)}
    x = jax.ShapeDtypeStruct((4,), jnp.float32)
    with jax.set_mesh(make_mesh()):
        result = measure.measure(planned(step, abstract, x, donated=("state",)), repeat=2)
        jax.effects_barrier()
    assert seen == [0.5, 1.5, 2.5]
    assert len(result.seconds) == 2 and result.devices == 1
    assert result.rate == pytest.approx(1e6 / result.median)


@pytest.fixture
def small(monkeypatch):
    """The command, with the tiny models in place of those that are published."""
    monkeypatch.setattr(sizes, "VAEConfig", lambda: tiny.VAE_CONFIG)
    monkeypatch.setattr(sizes, "TinyVAEConfig", lambda: tiny.TINY_VAE)
    monkeypatch.setattr(bench, "DiTConfig", lambda num_layers=None: tiny.DIT)
    monkeypatch.setattr(bench, "_text_encoder", lambda *_: tiny.TEXT)
    monkeypatch.setattr(bench, "VAEConfig", lambda: tiny.VAE_CONFIG)


def test_the_command_prints_a_table_and_writes_what_machines_read(small, tmp_path, capsys):
    file = tmp_path / "bench.json"
    words = ["--adapter", "none", "--decoder", "full", "--decoder", "tiny", "--repeat", "1"]
    words += ["--height", "32", "--width", "32", "--num-frames", "5"]
    assert cli.main(["bench", *words, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "TFLOP/s in a matmul" in out and "sample, none, total" in out
    assert "attention: chunked" in out and "sample, none, tiny decoder, total" in out
    values = json.loads(file.read_text())
    names = [one["name"] for one in values["programs"]]
    assert names.count("denoising step") == 1 and "text" in names
    for suffix in ("", " (tiny)"):
        assert f"decode first frame{suffix}" in names and f"decode next frames{suffix}" in names
    assert all(one["seconds"] and one["memory"] > 0 for one in values["programs"])
    for group, other in (("sample, none", "tiny"), ("sample, none, tiny decoder", "frame")):
        parts = [
            one
            for one in values["programs"]
            if (other not in one["name"]) or (other == "frame" and "tiny" in one["name"])
        ]
        total = sum(one["runs"] * one["seconds"][0] for one in parts)
        assert values["total_seconds"][group] == pytest.approx(total)
    assert values["command"].count("--decoder") == 2
    assert values["pipeline"]["sample, none, tiny decoder"]["stages"].keys() == {
        *("text", "encode", "denoise", "decode")
    }
    whole = values["pipeline"]["sample, none"]
    assert "sample, none, a video by the pipeline" in out and len(whole["seconds"]) == 1
    assert list(whole["stages"]) == ["text", "encode", "denoise", "decode"]
    assert 0 < sum(whole["stages"].values()) <= whole["seconds"][0]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--repeat", "0"], "--repeat 0"), (["--num-frames", "4"], "num_frames=4; expected 4 n + 1")],
)
def test_wrong_arguments_end_with_status_2(words, message, capsys):
    assert cli.main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


def test_diffusers_does_the_same_work_beside_it(small, tmp_path, capsys):
    pytest.importorskip("diffusers")
    file = tmp_path / "bench.json"
    words = ["--adapter", "none", "--adapter", "resnet", "--repeat", "1", "--peer", "diffusers"]
    words += ["--height", "32", "--width", "32", "--num-frames", "5", "--json", str(file)]
    assert cli.main(["bench", *words]) == 0
    assert "theirs / ours" in capsys.readouterr().out
    values = json.loads(file.read_text())
    assert [one["name"] for one in values["compared"]] == list(peer.WORK)
    assert {"torch", "diffusers"} < values["versions"].keys()
    seconds = {one["name"]: one["seconds"][0] for one in values["programs"][::-1]}
    decoding = seconds["decode first frame"] + seconds["decode next frames"]
    for one in values["compared"]:
        assert one["theirs"] > 0 and one["ratio"] == pytest.approx(one["theirs"] / one["ours"])
        assert one["how"] in ("eager", "torch.compile")
    compared = {one["name"]: one for one in values["compared"]}
    assert compared["decode"]["ours"] == pytest.approx(decoding)


def test_without_the_peer_it_is_said_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert cli.main(["bench", "--peer", "diffusers"]) == 1
    assert "pip install torch diffusers" in capsys.readouterr().err
