"""`python -m converters`: `flashmotion convert`, for a checkout that is not installed."""

from flashmotion_jax.cli.convert import main
from flashmotion_jax.runtime.interrupts import exit_process

exit_process(main())
