"""The wheel and the sdist: what they hold, and that an installed wheel works outside a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import flashmotion_jax
from flashmotion_jax.config import SamplingConfig
from helpers import small_cache, tiny

ROOT = Path(__file__).parents[1]
NAME = f"flashmotion_jax-{flashmotion_jax.__version__}"


def run(*command, cwd, **options):
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(kind, source, out):
    """Builds with the setuptools that is installed, without downloads."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    return out / run(sys.executable, "-c", code, cwd=source).splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The sdist of what git tracks: building leaves files in the folder it runs in."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("checkout")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in listed.splitlines():
        if (ROOT / name).is_file():  # a file may have been deleted and not yet committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return build("sdist", folder, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel, built from the sdist as installers do."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The scripts of an environment with the wheel; dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    code = "import sysconfig; print(sysconfig.get_path('purelib'), sysconfig.get_path('scripts'))"
    site, scripts = run(folder / "bin" / "python", "-c", code, cwd=folder).split()
    # A path in a .pth file adds modules, but not the editable installs that are listed there.
    Path(site, "parent.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--quiet"]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return Path(scripts)


@pytest.fixture
def flashmotion(installed, tmp_path):
    """Runs a command of the installed wheel in a folder that has a `configs` of its own."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise RuntimeError('not the package')")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return lambda *words: run(installed / "flashmotion", *words, cwd=tmp_path, env=environment)


def test_a_wheel_puts_one_name_into_site_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"flashmotion_jax", f"{NAME}.dist-info"}
    assert {
        "flashmotion_jax/assets/tiny/model.json",
        "flashmotion_jax/configs/sprites/stage2.py",
        "flashmotion_jax/configs/stage2.py",
        "flashmotion_jax/converters/dit.py",
        "flashmotion_jax/editor/static/index.html",
        "flashmotion_jax/editor/static/js/main.js",
    } <= names
    sources = [
        f"{'flashmotion_jax/' if folder != 'flashmotion_jax' else ''}{path.relative_to(ROOT)}"
        for folder in ("flashmotion_jax", "configs", "converters")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert set(sources) <= names


def test_an_sdist_holds_the_repository(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        ".ci/run",
        "docs/architecture.md",
        "examples/sprites.png",
        "launch/slurm.sbatch",
        "tests/conftest.py",
        "tests/models/golden/dit.npz",
        "tools/measure_options.py",
        "configs/common.py",
        "converters/dit.py",
    ):
        assert name in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("runs")]


def test_an_installed_wheel_samples_converts_and_plans_runs(flashmotion, tmp_path):
    assert flashmotion("--version").strip() == f"flashmotion {flashmotion_jax.__version__}"
    model = tiny.save_checkpoint(tmp_path / "model", SamplingConfig(negative_prompt="blurry"))
    video = ("--height", "64", "--width", "64", "--num-frames", "5", "--steps", "1")
    image = ROOT / "examples" / "sprites.png"
    out = flashmotion("sample", "--image", image, *video, "--out", "video.npy")
    assert "wrote video.npy: 5 frames, 64 x 64" in out
    out = flashmotion("convert", "export", model, "a.safetensors", "--adapter", "resnet")
    assert (tmp_path / "a.safetensors").is_file()
    out = flashmotion("convert", "import", "a.safetensors", "model", "--overwrite")
    assert "wrote adapters/resnet" in out
    small_cache.make_cache(tmp_path / "cache", num_rows=4)
    settings = {
        "cache": "cache",
        "batch_size": 2,
        "dtype": "float32",
        "mesh.fsdp": 1,
        "sample_every": 0,
        "stage.slow_generator": "model",
        "stage.start_from": "model",
        "stage.adapter.width": 16,
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    out = flashmotion("train", "--config", "stage1_box_resnet", *words, "--dry-run")
    assert "slow_generator: model/dit, frozen" in out
