"""`python -m flashmotion_jax.cli` is the `flashmotion` command."""

import sys

from flashmotion_jax.cli.main import main

sys.exit(main())
