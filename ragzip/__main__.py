"""``python -m ragzip``."""

from ragzip.cli import main

if __name__ == "__main__":
    main()
