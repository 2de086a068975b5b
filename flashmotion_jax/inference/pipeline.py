"""The inference pipeline: from an image, a prompt and a trajectory to a video.

    image --VAE--> latent frame 0 -----------------------+
    prompt --UMT5--> text ------------------------------ DiT + adapter, a few steps --VAE--> video
    boxes, masks --render--> maps --VAE--> latents ------+

Each stage loads its model, runs a compiled step in a loop and, unless `keep_loaded` is set, frees
the model, so that peak memory is that of the largest stage and not the sum.

Source: FlashMotion section 3; Wan2.2 `wan/textimage2video.py` for the image in latent frame 0.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    DECODERS,
    DEFAULT_ADAPTER,
    DiTConfig,
    Grid,
    SamplingConfig,
    VAEConfig,
)
from flashmotion_jax.converters.lora import LoRA
from flashmotion_jax.diffusion.generate import Conditions, generate_latents, make_schedule
from flashmotion_jax.diffusion.samplers import noise_keys
from flashmotion_jax.inference.chunks import decode_videos
from flashmotion_jax.inference.domain import Domain, shipped_model
from flashmotion_jax.inference.encoding import Encoded, encode_request, is_encoded, num_encoded
from flashmotion_jax.inference.model_store import ModelStore, stored_models
from flashmotion_jax.inference.previews import OnPreview, has_preview
from flashmotion_jax.inference.request import Request, make_request, require_tiny_vae
from flashmotion_jax.models.adapters import Adapter, adapter_class, takes_known_frames
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.finite import require_finite
from flashmotion_jax.runtime.progress import Progress, StepCounter
from flashmotion_jax.text.prompts import PromptEncoder


@dataclasses.dataclass(frozen=True)
class StageTime:
    """Seconds that a stage took to load its model, and to run (including compilation)."""

    stage: str
    load: float
    run: float


class Pipeline:
    """Generates videos from images, prompts and trajectories.

    `Pipeline.from_pretrained` opens a checkpoint; the constructor takes models in memory.

    Args:
      components: Loaders of "dit", "vae", "text_encoder" and, optionally, "tiny_vae" and "adapter".
        An adapter is any module with the methods of `models.adapters.Adapter`.
      tokenizer: Tokenizer of the text encoder.
      dit_config: Configuration of the DiT.
      vae_config: Configuration of the VAE.
      sampling: Default sampling settings.
      keep_loaded: Keep DiT, VAE and adapter in memory between stages and calls, which is faster for
        several videos.
      devices: Number of devices that share each video, by tokens in the DiT and by columns in the
        VAE. Each device holds all weights.
      prompt_cache: Folder for prompt embeddings.
      cache_key: Identifies the text encoder's weights in `prompt_cache`.
      takes_known_frames: Of the adapter, see `models.adapters.takes_known_frames`.

    Attributes:
      sampling: Default sampling settings; assign a `dataclasses.replace` of it to change them.
      domain: What the model knows; `domain.notice` says it, where it is little.
      stage_times: Times of the stages of the last call.
    """

    def __init__(
        self,
        components: Mapping[str, Callable[[], Any]],
        *,
        tokenizer: Any,
        dit_config: DiTConfig,
        vae_config: VAEConfig,
        sampling: SamplingConfig,
        keep_loaded: bool = True,
        devices: int = 1,
        prompt_cache: Path | None = None,
        cache_key: str = "",
        takes_known_frames: bool = False,
    ):
        self.sampling = sampling
        self.domain = Domain(tokenizer)
        self.stage_times: list[StageTime] = []
        self._vae_config, self._takes_known_frames = vae_config, takes_known_frames
        self._grid = Grid.of(dit_config, vae_config)
        self._mesh = sharding.make_mesh(context=devices)
        self._models = ModelStore(components, self._mesh, keep_loaded, dit_config)
        self._steps = StepCounter(None)
        self._encode_prompts = PromptEncoder(
            tokenizer,
            lambda: self._models.use("text_encoder", keep=False),
            dit_config.text_len,
            cache_dir=prompt_cache,
            cache_key=cache_key,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        adapter: str | Adapter | None = DEFAULT_ADAPTER,
        *,
        dtype: str | None = None,
        weights: str | None = None,
        keep_loaded: bool = True,
        devices: int = 1,
        prompt_cache: str | Path | None = None,
    ) -> Pipeline:
        """Opens a checkpoint of this project. Weights are read when a stage needs them.

        Args:
          path: Folder written by `flashmotion convert` or a training run; None for the included
            small model.
          adapter: A name in `config.ADAPTERS`, or an adapter module. None or "none" generates
            videos without trajectories.
          dtype: Dtype of matmuls and convolutions; None is bfloat16, or float32 on a CPU.
          weights: Dtype of their weights: "int8" or "fp8" for the linear layers of DiT, its copies
            and text encoder, whose matmuls then are in 8 bits, "bfloat16" or "float32". None is 8
            bits if they are stored so, else `dtype`.
          keep_loaded: See the class.
          devices: See the class.
          prompt_cache: See the class.

        Returns:
          The pipeline, with default settings from the checkpoint.

        Raises:
          UserError: The folder is not a complete checkpoint, there are fewer devices, or they have
            no matmul for the weights.
        """
        path = shipped_model() if path is None else path
        adapter = None if adapter == "none" else adapter
        kind = adapter if isinstance(adapter, str) else None
        folder = components.open_checkpoint(path, kind)
        dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
        stored = stored_models(folder, kind, dtype, weights)
        loaders: dict[str, Callable[[], Any]] = dict(stored)
        if adapter is not None and not kind:
            loaders["adapter"] = lambda: adapter
        return cls(
            loaders,
            tokenizer=folder.tokenizer,
            dit_config=folder.config.dit,
            vae_config=folder.config.vae,
            sampling=folder.config.sampling,
            keep_loaded=keep_loaded,
            devices=devices,
            prompt_cache=Path(prompt_cache) if prompt_cache else None,
            cache_key=f"{folder.text_encoder_key}-{dtype}-{stored['text_encoder'].policy().params}",
            takes_known_frames=takes_known_frames(adapter_class(kind) if kind else adapter),
        )

    def load_lora(
        self, path: str | Path, weight: float = 1.0, *, component: str | None = None
    ) -> LoRA:
        """Merges a LoRA into the generator or the adapter, in addition to those merged before.

        The model is read again when it is next used, and the original weights need no memory.

        Args:
          path: File or folder of PEFT, diffusers, Kohya, musubi-tuner, VideoX-Fun, ComfyUI or this
            project: LoRA, DoRA, LoHa, LoKr, or differences of weights.
          weight: What its changes are multiplied with.
          component: "dit" or "adapter"; by default what the file says, or else "dit".

        Returns:
          What the file changes; `str` describes it.

        Raises:
          UserError: The file is no LoRA, or one for another model. Nothing has changed.
        """
        return self._models.add_lora(path, weight, component)

    def unload_lora(self, path: str | Path | None = None) -> None:
        """Removes a LoRA, or all; the weights are again the bits that they were.

        Args:
          path: As it was loaded; None for all.

        Raises:
          UserError: It is not loaded.
        """
        self._models.remove_loras(path)

    def __call__(
        self,
        image: Any,
        prompt: Any,
        trajectory: Any = None,
        seed: int = 0,
        *,
        progress: Progress | None = None,
        on_preview: OnPreview | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Generates a video, or a batch of videos if `prompt` is a list.

        Args:
          image: First frame, a path or uint8 `[H, W, 3]`; None for text-to-video. A batch takes one
            image for all videos, or a list.
          prompt: Description of the video; a string, or a list of strings.
          trajectory: Motion of the objects, in any form that `trajectory.load_maps` reads; one, or
            a list. Without one, the adapter is not used; without an adapter, it is not allowed.
          seed: Random seed; video i of a batch uses `seed + i`.
          progress: Called with the name of a stage, the number of finished steps and the total.
            An exception that it raises cancels the call.
          on_preview: Called during denoising with the number of finished steps and the videos as
            they are predicted then, uint8 `[B, F, H, W, 3]`, decoded by the tiny VAE; at most ten
            times. An exception that it raises cancels the call.
          **options: See `request.make_request`: `num_inference_steps`, `height`, `width`,
            `num_frames`, `guidance_scale`, `adapter_scale`, `map_kind`, `known_frames`, `camera`,
            `last_image`, `key_frames`, `decoder`, `sampling`.

        Returns:
          uint8 `[F, H, W, 3]`, or `[B, F, H, W, 3]` for a batch.

        Raises:
          UserError: An argument is invalid, or previews are wanted of a model without a tiny VAE.
            Nothing has been loaded yet.
        """
        request = self.request(image, prompt, trajectory, seed, **options)
        videos = self.run(request, progress, on_preview)
        return videos[0] if isinstance(prompt, str) else videos

    def request(
        self, image: Any, prompt: Any, trajectory: Any = None, seed: int = 0, **options: Any
    ) -> Request:
        """Checks arguments of `__call__` and converts them to arrays.

        Args:
          image: See `__call__`.
          prompt: See `__call__`.
          trajectory: See `__call__`.
          seed: See `__call__`.
          **options: See `__call__`.

        Returns:
          The request, for `run`.

        Warns:
          UserWarning: The model does not know a word of a prompt, or pictures like the image.

        Raises:
          UserError: An argument is invalid.
        """
        request = make_request(
            image,
            prompt,
            trajectory,
            seed,
            sampling=options.pop("sampling", self.sampling),
            grid=self._grid,
            has_adapter="adapter" in self._models and trajectory is not None,
            has_tiny_vae="tiny_vae" in self._models,
            takes_known_frames=self._takes_known_frames,
            **options,
        )
        return self.domain.check(request)

    def run(
        self,
        request: Request,
        progress: Progress | None = None,
        on_preview: OnPreview | None = None,
    ) -> np.ndarray:
        """Generates the videos of a request, stage by stage.

        Args:
          request: From `request`.
          progress: See `__call__`.
          on_preview: See `__call__`.

        Returns:
          uint8 `[B, F, H, W, 3]`.

        Raises:
          UserError: A model is damaged, or previews are wanted of a model without a tiny VAE.
          FloatingPointError: A stage computes NaN or infinity.
        """
        if on_preview is not None:
            require_tiny_vae("previews while denoising", "tiny_vae" in self._models)
        self._steps = StepCounter(progress)
        self.stage_times = []
        sampling = request.sampling
        with jax.set_mesh(self._mesh):
            with self._stage("text", 1):
                text, negative_text = self._embed(request)
            factor = self._vae_config.temporal_factor
            with self._stage("encode", num_encoded(request, factor)):
                encoded = self._encode(request)
            conditions = Conditions(
                text,
                negative_text,
                encoded.image,
                encoded.maps,
                jnp.float32(request.adapter_scale),
                jnp.float32(sampling.guidance_scale),
                encoded.key_frames,
            )
            with self._stage("denoise", sampling.num_inference_steps):
                latents = self._denoise(request, conditions, on_preview)
                require_finite("denoise", "DiT and adapter", latents=latents)
            with (
                self._stage("decode", latents.shape[0] * latents.shape[1]),
                self._models.use(DECODERS[request.decoder]) as vae,
            ):
                return decode_videos(vae, latents, self._steps.advance)

    def _embed(self, request: Request) -> tuple[jax.Array, jax.Array | None]:
        if not request.sampling.is_guided:
            return self._encode_prompts(request.prompts), None
        # One call, so that the text encoder is loaded once for both.
        texts = self._encode_prompts([*request.prompts, request.sampling.negative_prompt])
        return texts[:-1], jnp.broadcast_to(texts[-1:], texts[:-1].shape)

    def _encode(self, request: Request) -> Encoded:
        if not is_encoded(request):
            return Encoded(None, None, None)
        with self._models.use("vae") as vae:
            return encode_request(vae, request, self._steps.advance)

    def _denoise(
        self, request: Request, conditions: Conditions, on_preview: OnPreview | None
    ) -> jax.Array:
        models, sampling, has_maps = self._models, request.sampling, request.maps is not None

        def preview(step: int, latents: jax.Array) -> None:
            if tiny_vae and on_preview and has_preview(step, sampling.num_inference_steps):
                on_preview(step, decode_videos(tiny_vae, latents))

        with (
            models.use("dit") as dit,
            models.use("adapter") if has_maps else nullcontext() as adapter,
            models.use("tiny_vae") if on_preview else nullcontext() as tiny_vae,
        ):
            shape = self._vae_config.latent_shape(request.num_frames, request.height, request.width)
            latents = generate_latents(
                dit,
                adapter,
                conditions,
                make_schedule(sampling),
                noise_keys(request.seeds),
                shape=shape,
                progress=self._steps,
                on_prediction=preview,
            )
            return jax.block_until_ready(latents)

    @contextmanager
    def _stage(self, name: str, total: int) -> Generator[None, None, None]:
        """Times a stage and reports its steps."""
        self._models.load_seconds = 0.0
        start = time.perf_counter()
        self._steps.start(name, total)
        yield
        self._steps.end()
        elapsed = time.perf_counter() - start
        load = self._models.load_seconds
        self.stage_times.append(StageTime(name, load, elapsed - load))
