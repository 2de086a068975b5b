"""`flashmotion evaluate` end to end: results, resuming, parts, generation, comparison."""

from __future__ import annotations

import errno
import html
import json
import re
import shutil
import sys
from dataclasses import astuple, replace

import numpy as np
import pytest

import flashmotion_jax as fm
from flashmotion_jax.cli.main import main
from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.data.sprites import Sprites, SpritesConfig
from flashmotion_jax.data.sprites.export import export
from flashmotion_jax.evaluation.evaluate import MissingPartsError
from flashmotion_jax.media.videos import read_video, write_video
from helpers import magicdata_tree as tree
from helpers import tiny
from helpers.small_networks import write_network

FOLDER = ("--bench", "folder", "--root", "x", "--pred", ".")


def evaluate(*args):
    return main(["evaluate", *map(str, args)])


def result(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def sprites(tmp_path_factory):
    """A clip with one object and one with two, and generated ones: the truth with noise."""
    root = tmp_path_factory.mktemp("sprites")
    size = SpritesConfig(num_frames=9, height=48, width=48)
    sources = [Sprites(1, seed=count, config=size, num_objects=count) for count in (1, 2)]
    export(sources, root / "data")
    rng = np.random.default_rng(0)
    for source in sources:
        video = source[0].video
        for strength in (4, 40):
            noisy = (video + rng.normal(0, strength, video.shape)).clip(0, 255)
            path = root / f"noise{strength}" / f"{source.id(0)}.mp4"
            write_video(path, noisy.astype(np.uint8), lossless=True)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_network(folder, "inception", divide=32)
    write_network(folder, "i3d", divide=16, classes=6)
    return folder


def score_sprites(sprites, pred, out, *more):
    inputs = ("--bench", "sprites", "--root", sprites / "data", "--pred", pred, "--out", out)
    return evaluate(*inputs, *more)


@pytest.fixture(scope="module")
def scored(sprites, weights, tmp_path_factory):
    """Results of the truth itself, with little and with much noise, including FID and FVD."""
    folder = tmp_path_factory.mktemp("scored")
    for name, pred in (("truth", "data/videos"), ("noise4", "noise4"), ("noise40", "noise40")):
        assert score_sprites(sprites, sprites / pred, folder / name, "--weights", weights) == 0
    return folder


def test_the_truth_has_distance_0_and_distance_grows_with_noise(scored):
    numbers = [result(scored / name)["groups"]["all"] for name in ("truth", "noise4", "noise40")]
    for name in ("fid", "fvd"):
        values = [one[name]["estimate"] for one in numbers]
        assert values[0] == pytest.approx(0, abs=1e-5 * values[2])
        assert values[0] < values[1] < values[2]
        assert numbers[2][name]["low"] <= values[2] <= numbers[2][name]["high"]
        assert numbers[2][name]["count"] == 2
    flicker = [one["flicker"]["estimate"] for one in numbers]
    assert flicker == sorted(flicker)
    assert numbers[0]["flicker"] == numbers[0]["true_flicker"]
    assert numbers[0]["mask_iou"]["estimate"] > numbers[2]["mask_iou"]["estimate"]
    # FVD has one row per video, and one row has no distance.
    alone = result(scored / "noise40")["groups"]["1"]
    assert alone["fvd"]["estimate"] is None and alone["fid"]["estimate"] > 0


def test_a_result_names_protocol_presets_and_weights(scored):
    about = result(scored / "noise40")
    assert about["presets"]["fid"]["resize"]["size"] == 299
    assert about["protocol"]["fid"] == "pytorch-fid" and about["protocol"]["fvd"] == "videogpt"
    assert re.fullmatch(r"inception-[0-9a-f]{64}\.npz", about["weights"]["fid"])
    assert about["videos"][0]["adds_to"].keys() == {"fid", "fvd", "video_distance"}
    report = (scored / "noise40" / "report.md").read_text()
    assert "- frame 0, which the method is given: left out\n" in report


def test_the_page_needs_no_other_file(scored):
    page = (scored / "noise40" / "report.html").read_text()
    assert page.count("<svg") > 8 and page.count("data:video/mp4;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page
    assert "N 2" in page


def test_reports_are_in_words(scored):
    """No value of Python, and a meaning for each metric of the table."""
    for name in ("report.md", "report.html"):
        text = (scored / "noise40" / name).read_text()
        text = html.unescape(re.sub(r'"data:[^"]*|(?s:<style>.*</style>)', "", text))
        assert not re.search(r"\b(None|True|False|nan|inf)\b|Path\(|[{}]|\('|\['", text)
        assert "intersection over union of the found masks" in text
        assert text.count("for comparison") == 2  # flicker and background change of the truth
    page = (scored / "noise40" / "report.html").read_text()
    assert page.count("<dt>") == page.count("<dd>") > 20


def test_significant_differences_are_named(scored, tmp_path, capsys):
    command = ("compare", scored / "noise4" / "result.json", scored / "noise40")
    assert evaluate(*command, "--json", tmp_path / "compare.json") == 0
    printed = capsys.readouterr().out
    assert "| flicker (levels) |" in printed and "A is better" in printed
    found = json.loads((tmp_path / "compare.json").read_text())["groups"]
    assert found.keys() == {"1", "2", "all"}
    assert found["all"]["flicker"]["verdict"] == "A is better"
    assert found["all"]["fid"]["difference"]["estimate"] < 0
    assert found["all"]["true_flicker"]["verdict"] == "not significant"
    assert evaluate("compare", scored / "noise4", scored / "noise4") == 0
    assert " is better" not in capsys.readouterr().out


def test_parts_and_batches_give_the_same_results(sprites, weights, scored, tmp_path, capsys):
    more = (sprites / "noise4", tmp_path, "--weights", weights, "--batch-size", 5)
    assert score_sprites(sprites, *more, "--part", "2/2") == 0
    assert "1 videos of other parts are still missing" in capsys.readouterr().out
    assert not (tmp_path / "result.json").exists()
    assert score_sprites(sprites, *more, "--part", "1/2") == 0
    one, two = result(scored / "noise4"), result(tmp_path)
    assert [video["id"] for video in one["videos"]] == [video["id"] for video in two["videos"]]
    for name, figure in one["groups"]["all"].items():
        assert two["groups"]["all"][name] == pytest.approx(figure, rel=1e-3), name
    with np.load(scored / "noise4" / "scores.npz") as a, np.load(tmp_path / "scores.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_run_resumes_and_measures_again_what_changed(tmp_path, capsys, monkeypatch):
    root = tree.make_tree(tmp_path / "data", 3)
    pred, out = tmp_path / "pred", tmp_path / "out"
    shutil.copytree(root / "videos", pred)
    (pred / "v1.mp4").write_bytes(b"no video")
    folders = ("--root", root, "--pred", pred, "--masks", root / "masks", "--out", out)
    assert evaluate("--bench", "folder", *folders) == 0
    assert "not scored: v1: " in capsys.readouterr().out
    scored = []
    from flashmotion_jax.evaluation import evaluate as module

    class Watched(module.Scorer):
        def __call__(self, item):
            scored.append(item.id)
            return super().__call__(item)

    monkeypatch.setattr(module, "Scorer", Watched)
    assert evaluate("--bench", "folder", *folders) == 0
    assert scored == []
    shutil.copy(root / "videos" / "v1.mp4", pred)
    (out / "videos" / "v2.npz").write_bytes(b"cut off")
    assert evaluate("--bench", "folder", *folders) == 0
    assert scored == ["v1", "v2"]
    assert "3 videos, 0 not scored" in capsys.readouterr().out
    # Frame 0 and averages are applied when results are collected.
    assert evaluate("--bench", "folder", *folders, "--count-frame-0") == 0
    assert scored == ["v1", "v2"]
    assert evaluate("--bench", "folder", *folders, "--method-frames", 5) == 0
    assert scored[2:] == ["v0", "v1", "v2"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("fault", ["pred", "masks"])
def test_a_failing_disk_is_not_kept_as_a_fault_of_the_video(tmp_path, capsys, fault):
    root = tree.make_tree(tmp_path / "data", 3)
    pred, masks, out = tmp_path / "pred", tmp_path / "masks", tmp_path / "out"
    shutil.copytree(root / "videos", pred)
    shutil.copytree(root / "masks", masks)
    folders = ("--root", root, "--pred", pred, "--masks", masks, "--out", out)
    file = pred / "v1.mp4" if fault == "pred" else masks / "v1" / "annotated_frame_00003.png"
    whole = file.read_bytes()
    file.unlink()
    file.symlink_to("/proc/self/mem")  # whose first page cannot be read
    assert evaluate("--bench", "folder", *folders) == 1
    words = r"1 of 3 videos could not be read \(first: v1: \[Errno 5\].*run again"
    assert re.search(words, capsys.readouterr().err)
    assert sorted(path.name for path in (out / "videos").iterdir()) == ["v0.npz", "v2.npz"]
    file.unlink()
    file.write_bytes(whole)
    assert evaluate("--bench", "folder", *folders) == 0
    assert "3 videos, 0 not scored" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error, traceback",
    [
        (MemoryError(), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ZeroDivisionError("a bug"), True),
        (ValueError("operands could not be broadcast"), True),
        (RuntimeError("CUDA out of memory"), True),
    ],
)
def test_only_faults_of_the_video_are_kept(tmp_path, capsys, monkeypatch, error, traceback):
    root, out = tree.make_tree(tmp_path / "data", 1), tmp_path / "out"
    folders = ("--root", root, "--pred", root / "videos", "--masks", root / "masks", "--out", out)

    def fail(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("flashmotion_jax.evaluation.scoring.score_frames", fail)
        assert evaluate("--bench", "folder", *folders) == 1
    assert ("Traceback" in capsys.readouterr().err) == traceback
    assert not list(out.rglob("*.npz"))
    assert evaluate("--bench", "folder", *folders) == 0


def test_evaluate_is_a_library_call(tmp_path):
    root, out = tree.make_tree(tmp_path / "data", 2), tmp_path / "out"
    config = fm.EvaluateConfig("folder", root, root / "videos", out, masks=root / "masks")
    calls = []
    results = fm.evaluate(config, lambda *call: calls.append(call))
    assert calls == [("evaluate", 1, 2), ("evaluate", 2, 2)]
    assert astuple(results.groups["all"]["mask_iou"]) == (1, 1, 1, 2)
    assert result(out) == json.loads(json.dumps(results.to_dict()))
    with pytest.raises(MissingPartsError, match="1 videos of other parts"):
        fm.evaluate(replace(config, out=tmp_path / "parts", part=(1, 2)))


class Painter:
    """A fake pipeline, whose videos have the gray level 50 + seed."""

    sampling = SamplingConfig(height=32, width=64, num_frames=5, fps=8)

    def __call__(self, image, prompt, maps, *, seed, num_frames, known_frames):
        assert image.shape == (*tree.SIZE, 3) and prompt.startswith("a dog runs to v")
        assert len(maps.objects) == 1
        return np.full((num_frames, 32, 64, 3), 50 + seed, np.uint8)


def generate(root, folder, *more):
    inputs = ("--bench", "folder", "--root", root, "--masks", root / "masks", "--generate")
    return evaluate(*inputs, "--pred", folder / "pred", "--out", folder / "out", *more)


def test_videos_are_generated_once_with_seeds_by_place(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "flashmotion_jax.inference.pipeline.Pipeline.from_pretrained", lambda *args: Painter()
    )
    root = tree.make_tree(tmp_path / "data", 2)
    assert generate(root, tmp_path) == 2
    assert "the model generates 5; add --method-frames 5" in capsys.readouterr().err
    more = ("--method-frames", 5, "--seed", 7)
    assert generate(root, tmp_path, *more) == 0
    assert "generated 2 videos in" in capsys.readouterr().out
    assert len(result(tmp_path / "out")["videos"]) == 2
    first, second = (tmp_path / "pred" / f"v{i}.mp4" for i in range(2))
    whole = first.read_bytes(), second.read_bytes()
    second.unlink()
    assert generate(root, tmp_path, *more, "--part", "2/2") == 0
    assert "generated 1 videos in" in capsys.readouterr().out
    assert (first.read_bytes(), second.read_bytes()) == whole
    assert read_video(second)[0][0, 0, 0].tolist() == [50 + 7 + 1] * 3


def test_videos_of_the_pipeline_are_scored(tmp_path, capsys):
    root = tree.make_tree(tmp_path / "data", 1)
    sampling = SamplingConfig(height=32, width=64, num_frames=5, fps=8, denoising_steps=(1000,))
    model = tiny.save_checkpoint(tmp_path / "model", sampling)
    assert generate(root, tmp_path, "--model", model, "--method-frames", 5) == 0
    assert "generated 1 videos in" in capsys.readouterr().out
    assert result(tmp_path / "out")["groups"]["all"]["mask_iou"]["count"] == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--root", "x"], "missing --bench, --pred; see flashmotion evaluate --help"),
        (["--bench", "davis", "--root", "x", "--pred", "."], "needs masks"),
        (
            [
                "--bench",
                "folder",
                "--root",
                "x",
                "--pred",
                ".",
                "--masks",
                "x",
                "--fid",
                "clean-fid",
            ],
            "need --weights",
        ),
        (
            ["--bench", "folder", "--root", "x", "--pred", ".", "--masks", "x", "--sam2"],
            "give one of them",
        ),
        (["compare", "gone.json", "gone.json"], "gone.json is missing; expected the"),
    ],
)
def test_bad_arguments_are_status_2(capsys, arguments, words):
    assert main(["evaluate", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_results_of_other_protocols_are_not_compared(tmp_path, capsys):
    root = tree.make_tree(tmp_path / "data", 2)
    folders = ("--root", root, "--pred", root / "videos", "--masks", root / "masks")
    assert evaluate("--bench", "folder", *folders, "--out", tmp_path / "a") == 0
    assert evaluate("--bench", "folder", *folders, "--out", tmp_path / "b", "--count-frame-0") == 0
    assert evaluate("compare", tmp_path / "a", tmp_path / "b") == 2
    assert "count_frame_0: False and True" in capsys.readouterr().err
    (root / "videos" / "v1.mp4").unlink()
    assert evaluate("--bench", "folder", *folders, "--out", tmp_path / "c") == 0
    capsys.readouterr()
    assert evaluate("compare", tmp_path / "a", tmp_path / "c") == 0
    printed = capsys.readouterr().out
    assert "1 videos only in A: v1" in printed and "Fréchet distances are not compared" in printed
