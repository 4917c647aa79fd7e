"""An open- and closed-loop load generator for versions 1 and 2 of the protocol: ``python -m bench.load``.

``run`` starts the ``generator`` processes, observes the server and hands their tallies to ``summary``;
``record`` is the JSON.
"""
