"""An open- and closed-loop load generator over version 1 and 2 of the protocol: ``python -m bench.load``."""
