"""The entry point of `actionvit` and of `python -m actionvit`, which torchrun needs."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line; Ctrl-C during its imports ends the process like a later one, without a traceback."""
    try:
        from actionvit import cli

        cli.main()
    except KeyboardInterrupt:
        os.write(2, b"\nAborted!\n")
        os._exit(1)


if __name__ == "__main__":
    main()
