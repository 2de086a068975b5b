from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation.benchmarks import read_benchmark
from flashmotion_jax.evaluation.benchmarks.base import object_masks
from flashmotion_jax.evaluation.sam2 import _prompt, sam2
from flashmotion_jax.evaluation.scoring import Scorer
from flashmotion_jax.evaluation.segmenters import smallest_on_top
from flashmotion_jax.media.geometry import fit_frames
from helpers import magicdata_tree as tree

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A narrow Sam2VideoModel with random weights, in its own format."""
    import torch
    from transformers import Sam2VideoConfig, Sam2VideoModel

    torch.manual_seed(0)
    config = Sam2VideoConfig(
        image_size=64,
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [64, 64],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 4],
                "global_attention_blocks": [3],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 128,
        },
        prompt_encoder_config={"hidden_size": 128, "image_size": 64, "mask_input_channels": 4},
        # The model's memory attention needs exactly 64 channels, and more everywhere else.
        mask_decoder_config={
            "hidden_size": 128,
            "mlp_dim": 16,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=16,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=16,
        max_object_pointers_in_encoder=3,
        num_maskmem=3,
    )
    folder = tmp_path_factory.mktemp("sam2")
    Sam2VideoModel(config).save_pretrained(folder)
    return folder


def two_objects(root):
    tree.make_tree(root, 1)
    frames = tree.map_frames(0, "masks")
    frames[:, 40:46, 60:70] = (80, 10, 10)
    for file in (root / "masks" / "v0").iterdir():
        file.unlink()
    (root / "masks" / "v0").rmdir()
    tree.write_maps(root / "masks" / "v0", frames)
    (item,) = read_benchmark("folder", root).items
    return item


def test_objects_start_from_their_masks_and_are_tracked_to_the_end(tmp_path, model):
    item = two_objects(tmp_path)
    frames = tree.video_frames(0)
    masks = list(sam2(model)(item, iter(frames)))
    assert len(masks) == tree.FRAMES
    assert {(mask.shape, mask.dtype.name) for mask in masks} == {((2, *tree.SIZE), "bool")}
    given = tree.map_frames(0, "masks")[0].any(axis=-1)
    # Masks have a quarter of the model's 64 pixels, so they are known to about four pixels.
    overlap = (masks[0][1] & given).sum() / (masks[0][1] | given).sum()
    assert overlap > 0.4
    again = list(sam2(model)(item, iter(frames)))
    np.testing.assert_array_equal(np.array(masks), np.array(again))


def test_dropped_results_change_nothing(tmp_path, model, monkeypatch):
    item = two_objects(tmp_path)
    frames = tree.video_frames(0)
    lean = np.array(list(sam2(model)(item, iter(frames))))
    monkeypatch.setattr("flashmotion_jax.evaluation.sam2._forget", lambda *args: None)
    np.testing.assert_array_equal(lean, np.array(list(sam2(model)(item, iter(frames)))))


def test_masks_can_be_scored(tmp_path, model):
    item = two_objects(tmp_path)
    found = Scorer(tmp_path / "videos", smallest_on_top(sam2(model)))(item)
    assert found.values["mask_iou"].shape == (2, tree.FRAMES)
    assert np.isfinite(found.values["mask_iou"]).all()


def test_prompts_follow_the_crop(tmp_path, model, monkeypatch):
    item = two_objects(tmp_path)
    height, width = tree.SIZE
    prompts = []
    monkeypatch.setattr(
        "flashmotion_jax.evaluation.sam2._prompt",
        lambda session, masks, side: prompts.append(masks) or _prompt(session, masks, side),
    )
    frames = fit_frames(tree.video_frames(0), height, width // 2)
    next(iter(sam2(model, resize="crop")(item, iter(frames))))
    given = object_masks(item.masks[0], item.labels)
    np.testing.assert_array_equal(prompts[0], given[..., width // 4 : width // 4 + width // 2])


def test_other_folders_raise(tmp_path):
    with pytest.raises(ValueError, match="no Sam2VideoModel at"):
        sam2(tmp_path)
