"""The two commands, ``vipsrv`` and ``vipsrv-client``."""
