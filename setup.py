"""The front of pyproject.toml, for tools that ask for a setup.py."""

import setuptools

setuptools.setup()
