from __future__ import annotations

import csv

import av
import numpy as np
import pytest

# The module, not its names: pytest would run `test_groups`.
from flashmotion_jax.data import sprites
from flashmotion_jax.data.magicdata import MagicData
from flashmotion_jax.data.sprites.__main__ import main
from flashmotion_jax.media.images import read_image
from flashmotion_jax.trajectory.render import render, render_masks
from flashmotion_jax.trajectory.schema import Trajectory

SOURCE = sprites.Sprites(6, seed=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "sprites"
    sprites.export(SOURCE, folder)
    return folder


def files_below(folder):
    return {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}


def test_magicdata_reads_every_row_pixel_for_pixel(root):
    data = MagicData(root, num_frames=17, height=64, width=64)
    assert (len(data), data.rejected) == (6, ())
    for example, clip in zip(data, SOURCE, strict=True):
        assert (example.id, example.caption) == (clip.id, clip.caption)
        np.testing.assert_array_equal(example.video, clip.video)
        colors = [item.rgb for item in clip.trajectory.objects]
        np.testing.assert_array_equal(example.masks, render_masks(clip.masks_KFHW, colors))
        # What a user's file renders to is what the model was trained on.
        trajectory = Trajectory.load(root / "trajectories" / f"{clip.id}.json")
        assert trajectory == clip.trajectory
        np.testing.assert_array_equal(example.boxes, render(trajectory, 64, 64, sprites.MAP_KIND))


def test_the_first_frames_and_the_csv(root):
    with (root / "MagicData.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, clip in zip(rows, SOURCE, strict=True):
        assert row == {
            "path": f"videos/{clip.id}.mp4",
            "text": clip.caption,
            "num_frames": "17",
            "height": "64",
            "width": "64",
            "fps": "8",
            "num_objects": str(len(clip.colors)),
        }
        with av.open(str(root / row["path"])) as video:
            assert video.streams.video[0].average_rate == 8
        image = read_image(root / "first_frames" / f"{clip.id}.png")
        np.testing.assert_array_equal(image, clip.video[0])


def test_an_interrupted_export_goes_on(root, tmp_path):
    def interrupt(done, total):
        assert total == 6
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sprites.export(SOURCE, tmp_path, progress=interrupt)
    assert not (tmp_path / "MagicData.csv").exists()
    assert len(list((tmp_path / "trajectories").iterdir())) == 3
    kept = {path: path.stat().st_mtime_ns for path in files_below(tmp_path).values()}
    # Killed in the middle of the fourth clip: a part of a map, no trajectory.
    torn = tmp_path / "masks" / SOURCE.id(3)
    torn.mkdir()
    (torn / "annotated_frame_00000.png").write_bytes(b"\x89PNG")
    steps = []
    sprites.export(SOURCE, tmp_path, progress=lambda *step: steps.append(step))
    assert steps == [(done, 6) for done in range(1, 7)]
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    there, expected = files_below(tmp_path), files_below(root)
    assert there.keys() == expected.keys()
    for name, path in there.items():
        assert path.read_bytes() == expected[name].read_bytes()


def test_a_folder_of_other_clips_is_left_alone(root, tmp_path):
    with pytest.raises(ValueError, match=r"holds other clips, see .*sprites\.json: give a new"):
        sprites.export(sprites.Sprites(6, seed=3), root)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something other than sprites: give a new folder"):
        sprites.export(SOURCE, tmp_path)
    with pytest.raises(ValueError, match=r"letter\.txt is a file; expected the name of a folder"):
        sprites.export(SOURCE, tmp_path / "letter.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_folder_can_be_made_larger(tmp_path):
    for count in (1, 2):
        sprites.export(sprites.Sprites(count, seed=2), tmp_path)
        assert len(MagicData(tmp_path, num_frames=17, height=64, width=64)) == count


def test_the_command_exports_the_test_split(tmp_path, capsys):
    out = tmp_path / "test"
    size = ["--num-frames", "5", "--height", "32", "--width", "48"]
    assert main([str(out), "--split", "test", "--per-group", "1", *size]) == 0
    assert capsys.readouterr().out == f"6 clips in {out / 'MagicData.csv'}\n"
    data = MagicData(out, num_frames=5, height=32, width=48)
    assert [row.id for row in data.rows] == [f"test-{group}-000000" for group in range(1, 7)]


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "out"), "--count", "0"]) == 2
    expected = "sprites: count=0; expected a whole number of clips, at least 1\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "out").exists()


def test_the_command_interrupted(tmp_path, capsys, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("flashmotion_jax.data.sprites.__main__.export", interrupt)
    assert main([str(tmp_path / "out"), "--count", "2"]) == 130
    assert "it left no partial files" in capsys.readouterr().err
