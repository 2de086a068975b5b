"""What `flashmotion download` knows by name: repositories, files, and what they become here.

Sources: the model cards of quanhaol/FlashMotion and Wan-AI/Wan2.2-TI2V-5B, the READMEs of
Wan2.2-TI2V-5B-Turbo and Wan-Move, and, for the SHA-256 of Inception, pytorch-fid. The repositories
have not been reached from where this was written; `--repo` names others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from flashmotion_jax.hub.repository import Address
from flashmotion_jax.hub.transfer import RemoteFile


@dataclasses.dataclass(frozen=True)
class Part:
    """What is downloaded and converted at a time.

    Attributes:
      kind: A component of a checkpoint, such as "dit" or "adapters/resnet"; "inception" or "i3d";
        or "files", which stay as they are.
      source: Key in `Item.sources`.
      file: The file in that repository; None for the files of the component in a Wan2.2 folder, or
        for all files.
    """

    kind: str
    source: str
    file: str | None = None


@dataclasses.dataclass(frozen=True)
class Item:
    """Something that can be downloaded.

    Attributes:
      about: A line for `--help`.
      folder: Where it goes unless the user says otherwise.
      sources: Repositories by short names, which `--repo` uses, and files on other hosts.
      parts: In the order in which they are converted.
      adapters: The file of each adapter in the repository "weights".
      conventions: How its generator is sampled, a name in `config.CONVENTIONS`.
      after: The command that uses it, with {folder} and {adapter}.
    """

    about: str
    folder: str
    sources: Mapping[str, Address | RemoteFile]
    parts: Sequence[Part]
    after: str
    adapters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    conventions: str | None = None


_WAN22 = Address("Wan-AI/Wan2.2-TI2V-5B")
_FLASHMOTION = Address("quanhaol/FlashMotion")
_TURBO = Address("quanhaol/Wan2.2-TI2V-5B-Turbo")

_INCEPTION = RemoteFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    size=95_628_359,
    digest="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)

_FILES = (Part("files", "data"),)
_DECODERS = (Part("vae", "base"), Part("text_encoder", "base"))
_SAMPLE = (
    "flashmotion sample --model {folder} --adapter {adapter} --image photo.jpg --trajectory "
    'trajectory.json --prompt "a dog runs to the left" --out video.mp4'
)
_SAMPLE_WITHOUT = (
    "flashmotion sample --model {folder} --adapter none --image photo.jpg "
    '--prompt "a dog runs to the left" --out video.mp4'
)
#: In the repository's folders, the names of our adapters.
_FOLDERS = {"resnet": "ResNet", "controlnet": "ControlNet"}

ITEMS: Mapping[str, Item] = {
    "flashmotion": Item(
        about="FlashMotion: the four-step generator and its adapters, VAE and text encoder",
        folder="checkpoints/flashmotion",
        conventions="flashmotion",
        sources={"weights": _FLASHMOTION, "base": _WAN22},
        parts=(Part("dit", "weights", "FastGenerator/model.pt"), *_DECODERS),
        adapters={name: f"FastAdapter/{part}/model.pt" for name, part in _FOLDERS.items()},
        after=_SAMPLE,
    ),
    "flashmotion-slow": Item(
        about="the multi-step model that FlashMotion starts from: Wan2.2-TI2V-5B and SlowAdapter",
        folder="checkpoints/flashmotion-slow",
        conventions="wan22",
        sources={"weights": _FLASHMOTION, "base": _WAN22},
        parts=(Part("dit", "base"), *_DECODERS),
        adapters={name: f"SlowAdapter/{part}/model.pt" for name, part in _FOLDERS.items()},
        after=_SAMPLE,
    ),
    "turbo": Item(
        about="Wan2.2-TI2V-5B-Turbo: four steps, without trajectories",
        folder="checkpoints/turbo",
        conventions="turbo",
        sources={"weights": _TURBO, "base": _WAN22},
        parts=(Part("dit", "weights", "model.pt"), *_DECODERS),
        after=_SAMPLE_WITHOUT,
    ),
    "wan22": Item(
        about="Wan2.2-TI2V-5B, which training starts from",
        folder="checkpoints/wan22",
        conventions="wan22",
        sources={"base": _WAN22},
        parts=(Part("dit", "base"), *_DECODERS),
        after=_SAMPLE_WITHOUT,
    ),
    "magicdata": Item(
        about="MagicData: 23 K videos with masks and boxes, for training",
        folder="data/MagicData",
        sources={"data": Address("quanhaol/MagicData", "dataset")},
        parts=_FILES,
        after="flashmotion cache --config cache_magicdata",
    ),
    "flashbench": Item(
        about="FlashBench, the benchmark of FlashMotion",
        folder="data/FlashBench",
        sources={"data": Address("quanhaol/FlashBench", "dataset")},
        parts=_FILES,
        after="flashmotion evaluate --bench flashbench --root {folder} --pred videos",
    ),
    "movebench": Item(
        about="MoveBench, the benchmark of Wan-Move",
        folder="data/MoveBench",
        sources={"data": Address("Ruihang/MoveBench", "dataset")},
        parts=_FILES,
        after="flashmotion evaluate --bench movebench --root {folder} --pred videos",
    ),
    "metrics": Item(
        about="Inception and I3D, the networks of FID and FVD",
        folder="metrics",
        sources={
            "inception": _INCEPTION,
            # A copy of VideoGPT's file, whose own host lists neither its size nor a checksum.
            "i3d": Address("Xiaodong/FVD_I3D"),
        },
        parts=(Part("inception", "inception"), Part("i3d", "i3d", "i3d_pretrained_400.pt")),
        after="flashmotion evaluate --bench flashbench --root data/FlashBench --pred videos "
        "--weights {folder}",
    ),
}
