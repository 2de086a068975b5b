"""SAM 2 of transformers, which follows the objects of frame 0 through a generated video.

Frames go in one at a time, and results beyond the model's memory are dropped, so memory does not
grow with the video. Only this file needs torch, the extra `eval`.

Source: Ravi et al., SAM 2 (2024); sizes and normalization are those of its image processor.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from flashmotion_jax.config import Resize
from flashmotion_jax.evaluation.benchmarks.base import Item, object_masks
from flashmotion_jax.evaluation.segmenters import Segmenter
from flashmotion_jax.media.geometry import Fit
from flashmotion_jax.runtime.errors import UserError

#: SAM 2.0, which MagicMotion's tools use; the papers name no version.
DEFAULT = "facebook/sam2-hiera-large"

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def sam2(
    model: str | Path = DEFAULT, device: str | None = None, resize: Resize = "stretch"
) -> Segmenter:
    """Makes a segmenter that starts from the benchmark's masks on frame 0.

    Args:
      model: Folder of a `Sam2VideoModel`, or owner/name on Hugging Face.
      device: A torch device; None for a GPU if there is one.
      resize: How the benchmark's pictures reached the size of the generated videos, which the masks
        follow.

    Raises:
      ImportError: torch is not installed.
      UserError: There is no such model.
    """
    try:
        import torch
        from transformers import Sam2VideoModel
    except ImportError as error:
        raise ImportError(
            'the segmenter SAM 2 needs torch: pip install "flashmotion_jax[eval]", or give --masks'
        ) from error
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        loaded: Any = Sam2VideoModel.from_pretrained(str(model)).to(cast(Any, device))
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Sam2VideoModel at {model} ({error}); give a folder of it, or a name such as "
            f"{DEFAULT}"
        ) from error
    return _segmenter(loaded.eval(), device, resize)


def _segmenter(model: Any, device: str, resize: Resize) -> Segmenter:
    import torch
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    size = model.config.image_size
    side = size if isinstance(size, int) else size[0]

    def masks(item: Item, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        prompts_KHW = object_masks(item.masks[0], item.labels)
        session: Any = None
        for number, frame in enumerate(frames):
            height, width = frame.shape[:2]
            if session is None:
                session = Sam2VideoInferenceSession(
                    video_height=height,
                    video_width=width,
                    inference_device=device,
                    dtype=cast(Any, torch.float32),
                )
                fit = Fit.of(prompts_KHW.shape[1:], (height, width), resize)
                _prompt(session, fit.masks(prompts_KHW), side)
            with torch.inference_mode(), _quiet():
                output = model(
                    inference_session=session, frame=_pixels(frame, side, device), frame_idx=number
                )
                logits = torch.nn.functional.interpolate(
                    output.pred_masks.float(), (height, width), mode="bilinear"
                )
            # The output is in the order of the prompts, which is that of the item's labels.
            yield (logits[:, 0] > 0).cpu().numpy()
            _forget(session, number, model.config)

    return masks


def _prompt(session: Any, masks_KHW: np.ndarray, side: int) -> None:
    """Prompts with the masks of frame 0, resized to the model's input."""
    import torch

    for k, mask_HW in enumerate(masks_KHW):
        mask = torch.from_numpy(mask_HW.astype(np.float32))[None, None]
        mask = torch.nn.functional.interpolate(
            mask, (side, side), mode="bilinear", align_corners=False, antialias=True
        )
        index = session.obj_id_to_idx(k + 1)
        session.add_mask_inputs(index, 0, (mask >= 0.5).float())
    session.obj_with_new_inputs = [k + 1 for k in range(len(masks_KHW))]


def _pixels(frame: np.ndarray, side: int, device: str) -> Any:
    """Resized to the model's square and normalized, float32 `[3, side, side]`."""
    import torch

    pixels = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() / 255
    pixels = torch.nn.functional.interpolate(
        pixels, (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
    return ((pixels[0] - mean) / deviation).to(device)


def _forget(session: Any, number: int, config: Any) -> None:
    """Drops frames, and results that are older than the model's memory."""
    session.processed_frames.pop(number, None)
    oldest = number - max(config.num_maskmem, config.max_object_pointers_in_encoder)
    for outputs in session.output_dict_per_obj.values():
        outputs["non_cond_frame_outputs"].pop(oldest, None)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Silences torch's warnings about its own operators, which no user can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
