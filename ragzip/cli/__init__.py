"""The command line. ``main`` is the entry point; each command has a file of its own."""

from ragzip.cli.app import main

__all__ = ["main"]
