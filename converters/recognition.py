"""Recognition of single files: the components that one holds, and where their keys begin."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from flashmotion_jax.runtime.errors import UserError

from . import adapters
from .lora_keys import is_lora
from .tensors import StateDict
from .wrappers import clean, common_holder, is_average, is_holder, is_training

#: A key that only one component has, and in only one layout -> the component and the layout.
SIGNATURES = {
    "head.head.weight": ("dit", "original"),
    "condition_embedder.time_proj.weight": ("dit", "diffusers"),
    "decoder.middle.0.residual.2.weight": ("vae", "original"),
    "post_quant_conv.weight": ("vae", "diffusers"),
    "decoder.22.weight": ("tiny_vae", "original"),
    "blocks.0.pos_embedding.embedding.weight": ("text_encoder", "original"),
    "encoder.final_layer_norm.weight": ("text_encoder", "diffusers"),
    "enc.output_norm.weight": ("text_encoder", "gguf"),
}


IS_LORA = (
    "the file is a LoRA, which changes a model and is none itself; merge it with `flashmotion "
    "sample --lora FILE`"
)

#: Places in a file where components may begin; training checkpoints have up to five.
MOST_PARTS = 50


@dataclass(frozen=True)
class Part:
    """The tensors of one component in a file.

    Attributes:
      kind: One of `components.kinds()`.
      layout: Whose names they have: a column of the component's table.
      prefix: What stands before every key in the file, apart from parts that torch inserts.
      tensors: State dict without the prefix.
    """

    kind: str
    layout: str
    prefix: str
    tensors: StateDict

    @property
    def place(self) -> str:
        """The prefix, for messages."""
        return f"under {self.prefix.removesuffix('.')!r:.80}" if self.prefix else "without a prefix"

    @property
    def table(self) -> str:
        """The content of a --map file that takes this part."""
        return json.dumps({"prefix": self.prefix})[:200]


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
      parts: The components to convert, one of each kind.
      notices: A line for everything else that was seen and left out.
      unused: Keys beside a part that belong to nothing known.
    """

    parts: Sequence[Part]
    notices: Sequence[str]
    unused: Sequence[str]


def recognize(
    source: StateDict,
    *,
    weights: str = "ema",
    component: str | None = None,
    prefix: str | None = None,
) -> Contents:
    """Finds the components in a file and chooses a copy of each.

    Args:
      source: All tensors of the file.
      weights: "ema" for the moving average, if there is one, or "raw".
      component: The one kind of component to take, whatever its keys are called.
      prefix: Take only what is under this prefix, which may have any words.

    Raises:
      UserError: There is no component, or several copies of one.
    """
    names = _clean_names(source)
    found = _find_parts(names)
    if component:
        found = [part for part in found if part.kind == component] or [
            _whole(names, component, prefix)
        ]
    if prefix is not None:
        found = _under(found, names, prefix)
    usable = [
        part
        for part in found
        if prefix is not None or (is_holder(part.prefix) and not is_training(part.prefix))
    ]
    if not usable:
        raise UserError(IS_LORA if is_lora(source) else _nothing(found))
    parts = [
        _choose(kind, [part for part in usable if part.kind == kind], weights)
        for kind in dict.fromkeys(part.kind for part in usable)
    ]
    others = [f"{part.kind} {part.place}" for part in found if part not in parts]
    groups, unused = _beside(names, found, parts)
    return Contents(parts, [f"left out: {other}" for other in (*others, *groups)], unused)


def identify(tensors: StateDict) -> tuple[str, str] | None:
    """Returns the kind and layout of a component by its own keys, or None."""
    for name in adapters.NAMES:
        if adapters.is_kind(name, tensors):
            return f"adapters/{name}", "flashmotion"
    return next((known for key, known in SIGNATURES.items() if key in tensors), None)


def _clean_names(source: StateDict) -> StateDict:
    names = {clean(key): key for key in source}
    if len(names) < len(source):
        lost = sorted(source.keys() - set(names.values()))
        raise UserError(f"without torch's wrappers these keys are not unique: {', '.join(lost)}")
    return {name: source[key] for name, key in names.items()}


def _find_parts(names: StateDict) -> list[Part]:
    """Finds every place where the keys of a component begin; the deepest come first."""
    anchors = (*SIGNATURES, *adapters.anchors())
    pattern = re.compile(rf"(?:(.*)\.)?({'|'.join(map(re.escape, anchors))})", re.DOTALL)
    prefixes = {
        f"{match[1]}." if match[1] is not None else ""
        for name in names
        if (match := pattern.fullmatch(name))
    }
    if len(prefixes) > MOST_PARTS:
        raise UserError(
            f"components begin at {len(prefixes)} places in the file, such as under "
            f"{min(prefixes)!r:.80}; expected at most {MOST_PARTS}"
        )
    parts: list[Part] = []
    free = dict(names)
    for prefix in sorted(prefixes, key=lambda prefix: (-prefix.count("."), prefix)):
        tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in free.items()
            if name.startswith(prefix)
        }
        if known := identify(tensors):
            parts.append(Part(*known, prefix, tensors))
            free = {name: tensor for name, tensor in free.items() if not name.startswith(prefix)}
    return parts


def _whole(names: StateDict, component: str, prefix: str | None) -> Part:
    """Takes all tensors as one component, whatever they are called."""
    prefix = common_holder(names) if prefix is None else prefix
    tensors = {
        name.removeprefix(prefix): tensor
        for name, tensor in names.items()
        if name.startswith(prefix)
    }
    return Part(component, "original", prefix, tensors)


def _under(found: Sequence[Part], names: StateDict, prefix: str) -> list[Part]:
    inside = [part for part in found if part.prefix == prefix]
    if not inside:
        places = ", ".join(repr(part.prefix) for part in found)
        starts = ", ".join(sorted({f"{name.partition('.')[0]}." for name in names})[:8])
        raise UserError(
            f"no component begins under the prefix {prefix!r}; expected "
            f"{f'one of {places}' if places else f'a prefix of the keys, which begin {starts}'}"
        )
    return inside


def _choose(kind: str, copies: Sequence[Part], weights: str) -> Part:
    """Chooses the moving average or the raw weights of a component."""
    averages = [part for part in copies if is_average(part.prefix)]
    raw = [part for part in copies if not is_average(part.prefix)]
    chosen = (averages or raw) if weights == "ema" else raw
    places = ", ".join(part.place for part in (chosen or copies)[:3])
    if not chosen:
        raise UserError(f"the file holds {kind} only {places}; expected --weights ema for it")
    if len(chosen) > 1:
        raise UserError(
            f"the file holds {kind} {len(chosen)} times, {places}; choose one by a --map file "
            f"with {chosen[0].table}"
        )
    return chosen[0]


def _beside(
    names: StateDict, found: Sequence[Part], parts: Sequence[Part]
) -> tuple[list[str], list[str]]:
    """Returns groups of tensors outside of all parts, and the keys that may be missing in one."""
    known = {f"{part.prefix}{key}" for part in found for key in part.tensors}
    tops = {part.prefix.partition(".")[0] for part in parts}
    counts: dict[str, int] = {}
    unused = []
    for name in sorted(names.keys() - known):
        top = name.partition(".")[0]
        if top in tops and not is_training(name.rpartition(".")[0]):
            unused.append(name)
        else:
            counts[top] = counts.get(top, 0) + 1
    groups = [
        f"{count} tensor{'s' if count > 1 else ''} of {top!r:.80}" for top, count in counts.items()
    ]
    if len(groups) > MOST_PARTS:
        groups = [f"{sum(counts.values())} tensors of {len(groups)} other groups"]
    return groups, unused


def _nothing(found: Sequence[Part]) -> str:
    places = ", ".join(f"{part.kind} {part.place}" for part in found[:3])
    unknown = [part for part in found if not is_training(part.prefix)]
    if unknown:
        return (
            f"the file holds {places}, which is no prefix that is known; to convert it all the "
            f"same, give a --map file with {unknown[0].table}"
        )
    if found:
        return f"the file holds {places}, for training alone; expected a generator or an adapter"
    return (
        "the keys of the file are those of no known component; `flashmotion convert inspect` lists "
        "them, and --map with --component takes a table of names of your own"
    )


def conventions_of(source: str) -> str:
    """Returns how the DiT of a file is sampled, judged by its name; few-step without any hint.

    Args:
      source: A path, or a name on the Hugging Face Hub.

    Returns:
      A name in `config.CONVENTIONS`.
    """
    *folders, file = source.lower().split("/")
    if "turbo" in "/".join([*folders[-1:], file]):
        return "turbo"
    return "wan22" if re.search(r"ti2v[-_]?5b", file) else "flashmotion"
