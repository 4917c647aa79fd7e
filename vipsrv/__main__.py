"""``python -m vipsrv`` is the ``vipsrv`` command."""

from vipsrv.cli.server import main

if __name__ == "__main__":
    main()
