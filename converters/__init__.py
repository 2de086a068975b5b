"""Conversion of checkpoints from and to PyTorch: `flashmotion convert --help`.

`dit`, `vae`, `text_encoder` and `adapters` each hold a table of parameter names, and `mapping`
applies a table in either direction. `reader` reads any container lazily, `quantized` turns 8 bits
into floats, `sources` and `folders` find files, and `writer` writes them. `recognition` finds the
components in a single file, `wrappers` says what stands before their keys, and `planning` decides
which tensors become which parameters. `lora` reads LoRAs, and `spiece` tokenizers. `importing`,
`exporting` and `inspection` implement the commands.
"""
