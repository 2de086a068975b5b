"""The two layouts of a Wan2.2 folder, and folders with one component of diffusers.

A layout is recognized by its files: "original" is that of `Wan-AI/Wan2.2-TI2V-5B`, "diffusers" that
of `Wan-AI/Wan2.2-TI2V-5B-Diffusers`. A folder of one component, such as `transformer`, has a
`config.json` that names its class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.file_formats import require_format
from flashmotion_jax.runtime.json_files import read_json_object

from .integrity import require_intact
from .reader import read_file
from .tensors import StateDict


@dataclasses.dataclass(frozen=True)
class Files:
    """Paths of a component in a layout: its weights, and its `config.json` if there is one."""

    weights: str
    config: str | None = None


LAYOUTS = {
    "original": {
        "dit": Files("diffusion_pytorch_model.safetensors", "config.json"),
        "vae": Files("Wan2.2_VAE.pth"),
        "text_encoder": Files("models_t5_umt5-xxl-enc-bf16.pth"),
    },
    "diffusers": {
        "dit": Files("transformer/diffusion_pytorch_model.safetensors", "transformer/config.json"),
        "vae": Files("vae/diffusion_pytorch_model.safetensors", "vae/config.json"),
        "text_encoder": Files("text_encoder/model.safetensors", "text_encoder/config.json"),
    },
}

#: Class in the `config.json` of a component of diffusers or transformers -> the component.
CLASSES = {
    "WanTransformer3DModel": "dit",
    "AutoencoderKLWan": "vae",
    "UMT5EncoderModel": "text_encoder",
}

_SAFE = ".safetensors"

TOKENIZERS = {"original": "google/umt5-xxl", "diffusers": "tokenizer"}


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder in a known layout.

    Attributes:
      path: The folder.
      layout: "original" or "diffusers".
      files: The components that it may have, and their files.
    """

    path: Path
    layout: str
    files: Mapping[str, Files]

    def read(self, kind: str) -> tuple[StateDict, dict[str, Any]]:
        """Opens the tensors of a component and reads its `config.json`, empty if there is none.

        Raises:
          UserError: A file is missing or damaged.
        """
        files = self.files[kind]
        weights = self.path / files.weights
        # Shards have an index. A .pth file may have been saved as safetensors, which need no torch.
        others = (weights.with_name(f"{weights.name}.index.json"), weights.with_suffix(_SAFE))
        source = read_file(next((other for other in others if other.is_file()), weights))
        return source, _read_json(self.path / files.config) if files.config else {}

    @property
    def tokenizer(self) -> Path | None:
        """The folder of the tokenizer; that of a single component lies beside it, or nowhere."""
        if self.files.keys() == LAYOUTS[self.layout].keys():
            return self.path / TOKENIZERS[self.layout]
        beside = self.path.parent / TOKENIZERS[self.layout]
        return beside if (beside / "tokenizer.json").is_file() else None


def open_folder(path: Path) -> Folder:
    """Recognizes the layout of a folder.

    Raises:
      UserError: The folder has neither layout, nor one component of diffusers.
    """
    if component := _find_component(path):
        return Folder(path, "diffusers", component)
    for layout, components in reversed(LAYOUTS.items()):
        for files in components.values():
            if any(path.glob(f"{files.weights}*")) or any(path.glob(_shards(files))):
                return Folder(path, layout, components)
        if (path / TOKENIZERS[layout] / "tokenizer.json").is_file():
            return Folder(path, layout, components)
    raise UserError(
        f"{path} is not a Wan2.2 checkpoint; expected the files of Wan-AI/Wan2.2-TI2V-5B or of "
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers. For a single file, give its path"
    )


def _find_component(path: Path) -> dict[str, Files] | None:
    """Returns the files of a folder that is itself a component of diffusers, or None."""
    if not (path / "config.json").is_file():
        return None
    values = _read_json(path / "config.json")
    architectures = values.get("architectures")
    names = (values.get("_class_name"), *(architectures if isinstance(architectures, list) else ()))
    for name, kind in CLASSES.items():
        if name in names:
            weights = Path(LAYOUTS["diffusers"][kind].weights).name
            return {kind: Files(weights, "config.json")}
    return None


def file_patterns(kind: str) -> list[str]:
    """Returns the names that the files of a component have in either layout, as for a shell."""
    patterns = []
    for layout, components in LAYOUTS.items():
        if kind in ("text_encoder", "tokenizer"):
            patterns.append(f"{TOKENIZERS[layout]}/*")
        if files := components.get(kind):
            patterns += [f"{files.weights}*", _shards(files)]
            patterns += [files.config] if files.config else []
    return patterns


def _shards(files: Files) -> str:
    return files.weights.replace(".safetensors", "-*.safetensors")


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file} is missing; download it again")
    require_format(file, ("json",), "a JSON object")
    require_intact(file)
    return read_json_object(file, "download it again")
