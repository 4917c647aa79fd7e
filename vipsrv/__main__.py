"""``python -m vipsrv`` is the ``vipsrv`` command."""

import os
import sys


def main() -> None:
    """The console script."""
    if os.name == "nt":
        sys.exit("vipsrv: servers run on Linux and macOS; use vipsrv-client with --host and --port here")
    from vipsrv.cli.server import main as command  # noqa: PLC0415 - it cannot even be imported there

    command()


if __name__ == "__main__":
    main()
