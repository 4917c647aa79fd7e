"""The ``vipsrv`` command, also run by ``python -m vipsrv``."""

import os
import sys


def main() -> None:
    """Run the command, as its console script."""
    if os.name == "nt":
        sys.exit("vipsrv: the server runs on Linux and macOS; use vipsrv-client with --host and --port here")
    from vipsrv.cli.server import main as command  # noqa: PLC0415 - it cannot be imported on Windows

    command()


if __name__ == "__main__":
    main()
