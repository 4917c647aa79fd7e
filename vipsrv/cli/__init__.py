"""The two commands: ``vipsrv`` (server.py, demo.py) and ``vipsrv-client`` (client.py)."""
