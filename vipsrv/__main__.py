"""The ``vipsrv`` command, also run by ``python -m vipsrv``."""

import os
import sys


def main() -> None:
    """Run the command; the entry point of the console script."""
    if os.name == "nt":
        sys.exit("vipsrv: the server runs on Linux and macOS; on this system use vipsrv-client with --host")
    from vipsrv.cli.server import main as command  # noqa: PLC0415 - it cannot be imported on Windows

    command()


if __name__ == "__main__":
    main()
