"""PyTorch checkpoints in and out: `flashmotion convert --help`.

`reader` and `folders` turn files into tensors that are read when asked for, `recognition` says what
a single file is. `dit`, `vae`, `text_encoder` and `adapters` hold a table of names each, and
`mapping` is the one engine that runs a table in both directions: `importing` and `exporting` are
the commands around it, `inspection` shows what an unknown file holds.
"""
