"""The two layouts of a Wan2.2 folder, on disk or on the Hugging Face Hub.

A layout is recognized by its files: "original" is that of `Wan-AI/Wan2.2-TI2V-5B`, "diffusers" that
of `Wan-AI/Wan2.2-TI2V-5B-Diffusers`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
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

_SAFE = ".safetensors"

TOKENIZERS = {"original": "google/umt5-xxl", "diffusers": "tokenizer"}


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder in a known layout.

    Attributes:
      path: The folder.
      layout: "original" or "diffusers".
    """

    path: Path
    layout: str

    def read(self, kind: str) -> tuple[StateDict, dict[str, Any]]:
        """Opens the tensors of a component and reads its `config.json`, empty if there is none.

        Raises:
          UserError: A file is missing or damaged.
        """
        files = LAYOUTS[self.layout][kind]
        weights = self.path / files.weights
        # Shards have an index. A .pth file may have been saved as safetensors, which need no torch.
        others = (weights.with_name(f"{weights.name}.index.json"), weights.with_suffix(_SAFE))
        source = read_file(next((other for other in others if other.is_file()), weights))
        return source, _read_json(self.path / files.config) if files.config else {}

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer."""
        return self.path / TOKENIZERS[self.layout]


def open_folder(path: Path) -> Folder:
    """Recognizes the layout of a folder.

    Raises:
      UserError: The folder has neither layout.
    """
    for layout, components in reversed(LAYOUTS.items()):
        for files in components.values():
            if any(path.glob(f"{files.weights}*")) or any(path.glob(_shards(files))):
                return Folder(path, layout)
    raise UserError(
        f"{path} is not a Wan2.2 checkpoint; expected the files of Wan-AI/Wan2.2-TI2V-5B or of "
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers. For a single file, give its path"
    )


def is_file(source: str) -> bool:
    """Whether a source is one file, on disk or on the Hugging Face hub, and not a folder."""
    path = Path(source)
    if path.exists():
        return path.is_file()
    return path.suffix in (".pt", ".pth", ".bin", ".safetensors")


def locate(source: str, kinds: Iterable[str]) -> Path:
    """Returns the path of a file or folder, downloading it if it is not on disk.

    Args:
      source: A path; or on the Hugging Face Hub `owner/name`, of which only the files of `kinds`
        are downloaded, or `owner/name/file`.
      kinds: Components that are needed.

    Raises:
      UserError: `source` is neither an existing path nor such a name.
      OSError: The download failed. Complete files are kept, and the next call continues.
    """
    path = Path(source)
    if path.exists():
        return path
    match = re.fullmatch(r"(\w[\w.-]*/[\w.-]+)(?:/(.+))?", source)
    if not match:
        raise UserError(
            f"{source} does not exist; expected a file, a folder, or owner/name on Hugging Face"
        )
    repository, file = match.groups()
    import huggingface_hub

    try:
        if file:
            return Path(huggingface_hub.hf_hub_download(repository, file))
        patterns = [pattern for kind in kinds for pattern in file_patterns(kind)]
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # the hub raises its own exceptions, those of httpx, and OSError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(
            f"{source} is not on this disk and could not be downloaded ({reason}); check name and "
            "network and run the command again, or download it elsewhere and give the folder"
        ) from error


def file_patterns(kind: str) -> list[str]:
    """Returns the names that the files of a component have in either layout, as for a shell."""
    patterns = []
    for layout, components in LAYOUTS.items():
        files = components[kind]
        patterns += [f"{files.weights}*", _shards(files)]
        patterns += [files.config] if files.config else []
        patterns += [f"{TOKENIZERS[layout]}/*"] if kind == "text_encoder" else []
    return patterns


def _shards(files: Files) -> str:
    return files.weights.replace(".safetensors", "-*.safetensors")


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file} is missing; download it again")
    require_format(file, ("json",), "a JSON object")
    require_intact(file)
    return read_json_object(file, "download it again")
