"""LoRA files for tests, under the names of every family of programs."""

from __future__ import annotations

import json

import numpy as np

#: Every linear layer of a block, as the original layout and as diffusers call it.
MODULES = {
    **{
        f"{ours}.{x}": f"{theirs}.{y}"
        for ours, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for x, y in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
    },
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}

#: Family -> a module's key from its name in the original layout and in diffusers, and the parts.
AB, DOWN_UP = ("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")
FAMILIES = {
    "diffusers": (lambda ours, theirs: f"transformer.{theirs}", AB, False),
    "peft": (lambda ours, theirs: f"base_model.model.{ours}", AB, False),
    "peft in memory": (
        lambda ours, theirs: f"base_model.model.{theirs}",
        ("lora_A.default.weight", "lora_B.default.weight"),
        False,
    ),
    "kohya": (lambda ours, theirs: "lora_unet_" + ours.replace(".", "_"), DOWN_UP, True),
    "kohya of diffusers": (
        lambda ours, theirs: "lora_unet_" + theirs.replace(".", "_"),
        DOWN_UP,
        True,
    ),
    "videox-fun": (lambda ours, theirs: "lora_unet__" + ours.replace(".", "_"), DOWN_UP, True),
    "comfyui": (lambda ours, theirs: f"diffusion_model.{ours}", DOWN_UP, True),
    "lightx2v": (lambda ours, theirs: f"diffusion_model.{ours}", AB, False),
    "diffsynth": (lambda ours, theirs: f"pipe.dit.{ours}", AB, False),
    "bare": (lambda ours, theirs: ours, ("lora_A", "lora_B"), False),
    "old diffusers": (
        lambda ours, theirs: f"unet.{theirs}",
        ("lora.down.weight", "lora.up.weight"),
        True,
    ),
}


def sizes(module, config):
    """Rows and columns of a linear layer's weight in PyTorch."""
    wide = {"ffn.0": (config.ffn_dim, config.dim), "ffn.2": (config.dim, config.ffn_dim)}
    return wide.get(module, (config.dim, config.dim))


def factors(config, seed=0, modules=MODULES, rank=4):
    """Original name -> (down, up), random; the ranks of the modules differ."""
    rng = np.random.default_rng(seed)
    result = {}
    for layer in range(config.num_layers):
        for index, module in enumerate(modules):
            rows, columns = sizes(module, config)
            own = rank + index % 3
            down = rng.standard_normal((own, columns), np.float32)
            up = rng.standard_normal((rows, own), np.float32)
            result[f"blocks.{layer}.{module}"] = (down / columns**0.5, up / own**0.5)
    return result


def named(family, pairs, alpha=3.0):
    """The tensors of a file; families that write no alpha have it in the `up` matrices."""
    key_of, (down_name, up_name), has_alpha = FAMILIES[family]
    tensors = {}
    for name, (down, up) in pairs.items():
        blocks, layer, module = name.split(".", 2)
        key = key_of(name, f"{blocks}.{layer}.{MODULES[module]}")
        scale = 1 if has_alpha else alpha / len(down)
        tensors[f"{key}.{down_name}"], tensors[f"{key}.{up_name}"] = down, up * np.float32(scale)
        if has_alpha:
            tensors[f"{key}.alpha"] = np.float32(alpha)
    return tensors


def write(path, tensors, metadata=None):
    """Writes safetensors without a library."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for key, array in tensors.items():
        array = np.asarray(array)
        end = len(data) + array.nbytes
        dtype = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[str(array.dtype)]
        header[key] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), end],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path
