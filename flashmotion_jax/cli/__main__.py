"""`python -m flashmotion_jax.cli` is the `flashmotion` command."""

from flashmotion_jax.cli.main import command

command()
