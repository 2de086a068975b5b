"""Packages of the wheel; everything else about the project is in pyproject.toml.

`configs` and `converters` are folders at the top of the repository and are installed inside the
package, as `flashmotion_jax.configs` and `flashmotion_jax.converters`, so that a wheel puts one
name into site-packages.
"""

from setuptools import find_packages, setup

TOP_LEVEL = ("configs", "converters")

setup(
    packages=[
        *find_packages(include=["flashmotion_jax", "flashmotion_jax.*"]),
        *(
            f"flashmotion_jax.{name}"
            for folder in TOP_LEVEL
            for name in find_packages(include=[folder, f"{folder}.*"])
        ),
    ],
    package_dir={f"flashmotion_jax.{folder}": folder for folder in TOP_LEVEL},
)
