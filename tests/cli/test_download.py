"""`flashmotion download` of models, from a local server with small ones under published names."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple

import huggingface_hub
import numpy as np
import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.cli.main import main
from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.converters import importing
from flashmotion_jax.hub import downloading, plan, transfer
from flashmotion_jax.hub.catalog import ITEMS
from flashmotion_jax.runtime.lock import sole_writer
from helpers.hub_server import download, requested

WEIGHTS, BASE = "quanhaol/FlashMotion", "Wan-AI/Wan2.2-TI2V-5B"
GENERATOR = "FastGenerator/model.pt"
ADAPTER = "FastAdapter/ResNet/model.pt"
MODEL = ["flashmotion", "--adapter", "resnet"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The files of both repositories: a small model under the published names, in their forms."""
    torch = pytest.importorskip("torch")
    from examples import small_checkpoint

    folder = small_checkpoint.write_small_checkpoint(tmp_path_factory.mktemp("wan"))
    base = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    base["assets/logo.png"] = b"not needed"
    rng = np.random.default_rng(3)
    scratch = tmp_path_factory.mktemp("weights") / "model.pt"

    def saved(state):
        torch.save(state, scratch)
        return scratch.read_bytes()

    def tensors(shapes):
        drawn = small_checkpoint.random_tensors(shapes, rng)
        return {name: torch.from_numpy(value) for name, value in drawn.items()}

    generator = {
        f"model.{key}": value for key, value in tensors(small_checkpoint.dit_shapes()).items()
    }
    return {
        WEIGHTS: {
            GENERATOR: saved({"generator_ema": generator}),
            ADAPTER: saved(tensors(small_checkpoint.adapter_shapes())),
            "SlowAdapter/ResNet/model.pt": saved(tensors(small_checkpoint.adapter_shapes())),
            "README.md": b"card",
        },
        BASE: base,
    }


@pytest.fixture
def whole_model(hub, published, monkeypatch):
    """The server, with the model's repositories."""
    from examples import small_checkpoint

    # The published sizes are those of a generator in a file of its own.
    monkeypatch.setattr(importing, "DiTConfig", lambda: small_checkpoint.DIT)
    hub.files |= {name: dict(files) for name, files in published.items()}
    return hub


@pytest.fixture
def model(whole_model, monkeypatch):
    """The same, of which only generator and adapter are taken: they are quick to convert."""
    item = ITEMS["flashmotion"]
    monkeypatch.setitem(ITEMS, "flashmotion", dataclasses.replace(item, parts=item.parts[:1]))
    return whole_model


@pytest.fixture
def dst(tmp_path):
    return tmp_path / "checkpoints" / "flashmotion"


def test_one_command_downloads_converts_and_says_how_to_sample(whole_model, dst, capsys):
    model = whole_model
    assert download(*MODEL, dst) == 0
    out = capsys.readouterr().out
    for kind in ("dit", "vae", "text_encoder", "adapters/resnet", "tokenizer"):
        assert (dst / kind).is_dir()
    assert components.read_sampling(dst) == SamplingConfig().with_conventions("flashmotion")
    assert f"weights: {WEIGHTS} at {model.commit(WEIGHTS)[:8]}\n" in out
    assert re.search(r"\n +[\d.]+ kB  adapters/resnet: FastAdapter/ResNet/model\.pt\n", out)
    assert re.search(r"\ndisk of .*: [\d.]+ MB needed at most, [\d.]+ [GT]B free\n", out)
    assert out.index("needed at most") < out.index(
        "wrote dit, adapters/resnet, vae, text_encoder to"
    )
    assert out.splitlines()[-1].startswith(f"  flashmotion sample --model {dst} --adapter resnet ")
    assert "assets/logo.png" not in requested(model)
    assert not plan.downloads_folder(dst).exists()
    assert main(["convert", "verify", str(dst)]) == 0


def test_a_second_adapter_downloads_nothing_else(model, dst, capsys):
    assert download(*MODEL, dst) == 0
    model.requests.clear()
    model.files[WEIGHTS]["README.md"] = b"another commit, the same files"
    assert download(*MODEL, dst) == 0
    assert requested(model) == set()
    out = capsys.readouterr().out
    assert "dit: FastGenerator/model.pt, converted already" in out
    assert f"{dst} is complete; nothing was changed" in out


def test_a_change_of_the_weights_between_runs(model, dst, published, capsys):
    assert download(*MODEL, dst) == 0
    model.files[WEIGHTS][ADAPTER] = published[WEIGHTS]["SlowAdapter/ResNet/model.pt"]
    assert download(*MODEL, dst) == 2
    assert f"{dst} has adapters/resnet from other files, of another" in capsys.readouterr().err
    model.requests.clear()
    before = components.read_component(dst, "adapters/resnet").key
    assert download(*MODEL, dst, "--overwrite") == 0
    assert requested(model) == {ADAPTER}
    assert components.read_component(dst, "adapters/resnet").key != before


def test_an_interruption_after_a_conversion(model, dst, monkeypatch):
    """The component is there, but nothing says what it was made from."""

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(downloading, "recorded", interrupted)
        assert download(*MODEL, dst) == 130
    assert (dst / "dit").is_dir()
    model.requests.clear()
    assert download(*MODEL, dst) == 0
    assert requested(model) == {ADAPTER}
    assert not plan.downloads_folder(dst).exists()


def test_a_component_that_was_replaced_meanwhile(model, dst, tmp_path, capsys):
    assert download(*MODEL, dst) == 0
    (tmp_path / "own.pt").write_bytes(model.files[WEIGHTS]["SlowAdapter/ResNet/model.pt"])
    own = ["convert", "import", str(tmp_path / "own.pt"), str(dst), "--overwrite"]
    assert main(own) == 0
    assert download(*MODEL, dst) == 2
    assert f"{dst} has adapters/resnet from other files" in capsys.readouterr().err


def test_the_slow_model_uses_the_base(model, dst, monkeypatch):
    item = ITEMS["flashmotion-slow"]
    monkeypatch.setitem(ITEMS, "flashmotion-slow", dataclasses.replace(item, parts=item.parts[:1]))
    assert download("flashmotion-slow", "--adapter", "resnet", dst, "--dtype", "float32") == 0
    assert components.read_sampling(dst) == SamplingConfig().with_conventions("wan22")
    assert components.read_component(dst, "dit").dtype == "float32"
    assert requested(model) & {GENERATOR, ADAPTER} == set()


def test_a_cut_connection_continues_in_the_next_run(model, dst, capsys):
    size = len(model.files[WEIGHTS][ADAPTER])
    model.cuts[ADAPTER] = [size // 2] + [0] * 10
    assert download(*MODEL, dst) == 1
    error = capsys.readouterr().err
    assert f"{ADAPTER}: " in error and "run the same command again to continue" in error
    assert (dst / "dit").is_dir()
    assert not (dst / "adapters").exists()
    model.cuts.clear()
    model.requests.clear()
    assert download(*MODEL, dst) == 0
    out = capsys.readouterr().out
    assert re.search(r"adapters/resnet: .*model\.pt, [\d.]+ [kM]B of it here", out)
    assert [r for method, _, r in model.requests if method == "GET"] == [
        f"bytes={size // 2}-{size - 1}"
    ]
    assert (dst / "adapters" / "resnet").is_dir()


def test_wrong_bytes_are_never_converted(model, dst, capsys):
    model.wrong[GENERATOR] = 99
    assert download(*MODEL, dst) == 1
    assert "arrived twice with other bytes" in capsys.readouterr().err
    assert not dst.exists()


def test_dry_run(model, dst, capsys):
    assert download(*MODEL, dst, "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "dry run: nothing was written"
    assert not dst.parent.exists() or list(dst.parent.iterdir()) == []
    assert requested(model) == set()


def test_too_little_disk_is_said_first(model, dst, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    assert download(*MODEL, dst) == 2
    printed = capsys.readouterr()
    assert "needed at most, 1.0 kB free" in printed.out
    assert "GB too little is free on the disk of" in printed.err
    assert requested(model) == set()


def test_turbo_is_sampled_as_turbo_wherever_its_file_is(model, dst, monkeypatch):
    item = ITEMS["turbo"]
    monkeypatch.setitem(ITEMS, "turbo", dataclasses.replace(item, parts=item.parts[:1]))
    model.files["me/distilled"] = {"model.pt": model.files[WEIGHTS][GENERATOR]}
    assert download("turbo", dst, "--repo", "weights=me/distilled") == 0
    assert components.read_sampling(dst) == SamplingConfig().with_conventions("turbo")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_a_disk_that_is_full_meanwhile(model, dst, capsys):
    parts = plan.downloads_folder(dst) / WEIGHTS.replace("/", "--") / transfer.PARTS
    parts.mkdir(parents=True)
    (listed,) = plan.open_repository(plan.Address(WEIGHTS)).select([GENERATOR])
    transfer._part(listed, parts.parent).symlink_to("/dev/full")
    assert download(*MODEL, dst) == 1
    error = capsys.readouterr().err
    assert "is full (No space left on device;" in error
    assert "run the same command again: it continues" in error


def test_one_writer(model, dst, capsys):
    folder = plan.downloads_folder(dst)
    folder.mkdir(parents=True)
    with sole_writer(folder):
        assert download(*MODEL, dst) == 2
    assert "is being written by process" in capsys.readouterr().err


def test_a_gated_repository_is_said_first(model, dst, capsys, monkeypatch):
    model.gated.add(WEIGHTS)
    assert download(*MODEL, dst) == 2
    assert f"{model.url}/{WEIGHTS} is gated: accept its conditions" in capsys.readouterr().err
    assert requested(model) == set()
    monkeypatch.setenv("HF_TOKEN", model.token)
    assert download(*MODEL, dst, "--dry-run") == 0


def test_files_in_the_cache_of_the_library_are_used(model, dst, capsys):
    path = huggingface_hub.hf_hub_download(WEIGHTS, GENERATOR)
    damaged = huggingface_hub.hf_hub_download(WEIGHTS, ADAPTER)
    with open(damaged, "r+b") as file:  # noqa: PTH123
        file.write(b"damage")
    model.requests.clear()
    assert download(*MODEL, dst) == 0
    assert requested(model) == {ADAPTER}
    assert f"dit: {GENERATOR}, in the cache of huggingface_hub" in capsys.readouterr().out
    assert os.path.exists(path)  # noqa: PTH110


def test_keep(model, dst):
    assert download(*MODEL, dst, "--keep") == 0
    folder = plan.downloads_folder(dst) / WEIGHTS.replace("/", "--")
    assert (folder / ADAPTER).read_bytes() == model.files[WEIGHTS][ADAPTER]


def test_an_unknown_form_keeps_the_file(model, dst, capsys, published):
    """Also: what is converted stays, and the next run continues with the rest."""
    import io

    import torch

    stream = io.BytesIO()
    torch.save({"something": torch.ones(3)}, stream)
    model.files[WEIGHTS][ADAPTER] = stream.getvalue()
    assert download(*MODEL, dst) == 2
    folder = plan.downloads_folder(dst) / WEIGHTS.replace("/", "--")
    assert f"adapters/resnet cannot be converted; its files are kept in {folder}" in (
        capsys.readouterr().err
    )
    assert (folder / ADAPTER).is_file()
    assert not list(folder.parent.glob("*.unfinished"))
    assert (dst / "dit").is_dir()
    model.files[WEIGHTS][ADAPTER] = published[WEIGHTS][ADAPTER]
    model.requests.clear()
    assert download(*MODEL, dst) == 0
    assert GENERATOR not in requested(model)


def test_other_repositories(model, dst, capsys):
    model.files["me/flash"] = model.files.pop(WEIGHTS)
    assert download(*MODEL, dst) == 2
    assert f"{WEIGHTS} does not exist, or is private" in capsys.readouterr().err
    commit = model.commit("me/flash")
    assert download(*MODEL, dst, "--repo", f"weights=me/flash@{commit}") == 0
    record = json.loads((dst / "sources.json").read_text())
    assert record["dit"]["repository"] == "me/flash"


def test_a_folder_with_something_else(model, dst, capsys):
    dst.mkdir(parents=True)
    (dst / "thesis.tex").write_text("mine")
    assert download(*MODEL, dst) == 2
    assert "exists and is not a checkpoint of this project" in capsys.readouterr().err
    assert requested(model) == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flash"], "'flash' is not known; expected one of flashmotion, "),
        (["wan22", "--adapter", "resnet"], "wan22 has no adapters; leave --adapter out"),
        (["flashmotion", "--repo", "a/b"], "--repo a/b: expected weights=OWNER/NAME or base="),
        (["flashmotion", "--repo", "x=a/b"], "--repo x=a/b: expected weights=OWNER/NAME or"),
        (["flashmotion", "--repo", "base=b"], "'b' is not a repository; expected OWNER/NAME"),
        (["metrics", "--repo", "inception=a/b"], "--repo inception=a/b: expected i3d=OWNER/NAME"),
        (["metrics", "/"], "/ cannot be the folder of a download; choose one below it"),
        (["wan22", "a", "b"], "unrecognized arguments: b"),
        (["wan22", "https://huggingface.co/x"], "it is an address; expected a path"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    try:
        status = download(*arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_no_network(dst, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert download(*MODEL, dst) == 1
    error = capsys.readouterr().err
    assert f"cannot reach http://127.0.0.1:9/{WEIGHTS} (" in error
    assert len(error.splitlines()) == 1
    assert not dst.parent.exists()


def test_help_is_fast():
    code = (
        "import sys\nfrom flashmotion_jax.cli.main import build_parser\n"
        "build_parser().format_help()\n"
        "sys.exit(bool({'jax', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
