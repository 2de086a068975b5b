from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from flashmotion_jax.data import sprites
from flashmotion_jax.data.sprites import PALETTE
from flashmotion_jax.evaluation.benchmarks.sprites import clip_frames, segment
from flashmotion_jax.evaluation.bootstrap import paired_difference
from flashmotion_jax.evaluation.metrics import VIDEO_METRICS
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.scoring import Score, score_frames, summarize, totals_of

PROTOCOL = Protocol("sprites", "colors")
#: Of the frame, in pixels.
DIAGONAL = np.hypot(64, 64)


@pytest.fixture(scope="module")
def clips():
    return [clip for group in sprites.test_groups(4).values() for clip in group]


def score(video, clip):
    return Score(clip.id, "all", score_frames(clip_frames(video, clip), "sprites"))


def measured(clips, distort):
    return [score(distort(clip.video), clip) for clip in clips]


def measure(video, clip):
    """The value of each metric of a clip."""
    found = totals_of(score(video, clip).values, PROTOCOL)
    return {name: total / weight for name, (total, weight) in found.items()}


def estimates(scores):
    return {name: found.estimate for name, found in summarize(scores, PROTOCOL).items()}


def shifted(video, pixels):
    return np.roll(video, pixels, axis=2)


def blurred(video, radius=0.7):
    frames = [Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius)) for frame in video]
    return np.stack([np.asarray(frame) for frame in frames])


def drawn(*rectangles):
    """One gray frame with colored rectangles (color, x0, y0, x1, y1), three times."""
    video = np.full((3, 40, 60, 3), 120, np.uint8)
    for color, x0, y0, x1, y1 in rectangles:
        video[:, y0:y1, x0:x1] = PALETTE[color]
    return video


def test_colors_are_found_bright_and_dark():
    video = drawn(("red", 5, 5, 15, 15), ("blue", 30, 10, 50, 30))
    video[:, 20:] = np.rint(video[:, 20:] * 0.62)
    labels = segment(video, ("blue", "red"))
    expected = np.zeros((40, 60), int)
    expected[10:30, 30:50] = 1
    expected[5:15, 5:15] = 2
    np.testing.assert_array_equal(labels[1], expected)


def test_a_mixture_of_two_colors_is_not_a_third_object():
    video = drawn(("red", 5, 5, 20, 20), ("yellow", 40, 5, 50, 15), ("green", 21, 5, 35, 20))
    video[:, 5:20, 20] = np.add(PALETTE["red"], PALETTE["green"], dtype=int) // 2
    yellow = segment(video, ("red", "yellow", "green"))[0] == 2
    assert yellow[5:15, 40:50].all() and yellow.sum() == 100


def test_gray_is_background():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    assert not segment(levels, tuple(PALETTE)).any()


def test_scores_of_real_clips_are_nearly_perfect(clips):
    numbers = estimates(measured(clips, lambda video: video))
    assert numbers["mask_iou"] > 0.93
    assert numbers["box_iou"] > 0.93
    assert numbers["centroid_error"] * DIAGONAL < 0.5
    assert numbers["lost"] < 0.01
    assert numbers["sharpness"] == numbers["motion"] == 1
    for name in ("psnr", "background_psnr"):
        assert numbers[name] == pytest.approx(58.92, abs=0.01)


def test_shifting_lowers_iou_and_the_centroid_moves_by_as_much(clips):
    inside = [clip for clip in clips if not clip.masks_KFHW[..., -6:].any()]
    assert len(inside) > 5
    rows = [estimates(measured(inside, lambda v, p=p: shifted(v, p))) for p in (0, 1, 2, 4, 6)]
    for name in ("mask_iou", "box_iou", "background_psnr"):
        values = [row[name] for row in rows]
        assert values == sorted(values, reverse=True)
    errors = [row["centroid_error"] * DIAGONAL for row in rows[1:]]
    np.testing.assert_allclose(errors, [1, 2, 4, 6], atol=0.3)


def test_blur_costs_sharpness_and_hardly_any_iou(clips):
    """IoU alone can be won by blurring."""
    numbers = estimates(measured(clips, blurred))
    real = estimates(measured(clips, lambda video: video))
    assert numbers["mask_iou"] > real["mask_iou"] - 0.05
    assert numbers["box_iou"] > real["box_iou"] - 0.05
    assert numbers["centroid_error"] < real["centroid_error"] + 0.5 / DIAGONAL
    assert numbers["sharpness"] < 0.6


def test_a_still_video_has_no_motion_and_keeps_its_sharpness(clips):
    numbers = estimates(measured(clips, lambda video: video[[0] * len(video)]))
    assert numbers["motion"] == 0
    assert numbers["sharpness"] == pytest.approx(1, abs=0.1)
    assert numbers["mask_iou"] < 0.7


def test_lost_objects_are_counted(clips):
    clip = next(clip for clip in clips if not clip.camera_moves)
    gray = np.full_like(clip.video, 128)
    found = measure(gray, clip)
    assert found["mask_iou"] == found["box_iou"] == 0
    assert found["lost"] == 1
    assert found["centroid_error"] == pytest.approx(0.5)
    generated, true = totals_of(score(gray, clip).values, PROTOCOL)["sharpness"]
    assert generated == 0 < true


def test_frame_0_is_not_measured(clips):
    clip = clips[0]
    other = clip.video.copy()
    other[0] = 0
    # Flicker and background change compare frames with frame 0.
    names = set(measure(other, clip)) - {"flicker", "background_change"}
    found, expected = measure(other, clip), measure(clip.video, clip)
    assert {"mask_iou", "sharpness", "motion", "psnr"} <= names
    for name in names:
        np.testing.assert_equal(found[name], expected[name])


def test_the_background_counts_if_the_camera_is_still(clips):
    moving = next(clip for clip in clips if clip.camera_moves)
    still = next(clip for clip in clips if not clip.camera_moves)
    assert "background_psnr" not in measure(moving.video, moving)
    brighter = np.where(still.static_FHW[..., None], still.video + 5, still.video)
    found = measure(brighter.astype(np.uint8), still)
    assert found["background_psnr"] == pytest.approx(20 * np.log10(255 / 5))
    share = still.static_FHW[1:].mean()
    assert found["psnr"] == pytest.approx(20 * np.log10(255 / 5) - 10 * np.log10(share))


def test_systems_are_compared_clip_by_clip(clips):
    real, moved = measured(clips, lambda v: v), measured(clips, lambda v: shifted(v, 2))
    totals = [[totals_of(score.values, PROTOCOL) for score in scores] for scores in (real, moved)]
    found = {
        name: paired_difference(
            *(np.array([one.get(name, (0, np.nan)) for one in side]) for side in totals),
            VIDEO_METRICS[name].statistic("video"),
        )
        for name in summarize(real, PROTOCOL)
    }
    assert found["mask_iou"].low > 0
    assert found["centroid_error"].high < 0
    assert found["sharpness"].estimate == pytest.approx(0, abs=0.02)
    assert found["background_psnr"].count == sum(not clip.camera_moves for clip in clips)


def test_wrong_videos_and_colors_raise(clips):
    clip = clips[0]
    with pytest.raises(ValueError, match="expected equal shapes"):
        score(clip.video[:-1], clip)
    with pytest.raises(ValueError, match=r"expected uint8 \[F, H, W, 3\]"):
        score(clip.video / 255, clip)
    for colors in ((), ("red", "mauve")):
        with pytest.raises(ValueError, match="expected some of red"):
            segment(clip.video, colors)
