"""The program that a worker process runs: ``python -m vipsrv.workers.child``."""
