"""Conversion of checkpoints from and to PyTorch: `flashmotion convert --help`.

`dit`, `vae`, `text_encoder` and `adapters` each hold a table of parameter names, and `mapping`
applies a table in either direction. `reader` and `folders` read files lazily, `writer` writes them,
and `recognition` decides what a single file contains. `lora` reads LoRAs.
`importing`, `exporting` and `inspection` implement the commands.
"""
