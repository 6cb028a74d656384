"""The command line. ``main`` is the entry point; each command has a file of its own."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line and exits; see ``ragzip.cli.app.run`` for the codes."""
    try:
        from ragzip.cli.app import main as run_app  # imported late, so that Ctrl-C is heard from the first moment
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.stderr.flush()
        os._exit(130)
    run_app()
