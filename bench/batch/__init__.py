"""Runs of ``vipsrv.batch`` in processes of their own, for the tools and the suite.

``engine_run`` resizes the files of a folder by a server that runs already; ``synthetic`` has as many keys as
wanted, and a client that answers at once.
"""
