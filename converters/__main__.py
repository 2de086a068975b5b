"""`python -m converters`: `flashmotion convert`, for a checkout that is not installed."""

import sys

from flashmotion_jax.cli.convert import main

sys.exit(main())
