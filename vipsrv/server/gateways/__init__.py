"""A server with several gateways: a supervisor, and gateway processes that share its addresses.

::

    supervisor   supervisor.py ── gateway_process.py ── messages.py ──┐   one for each gateway
                      └── listening.py, shares.py                     │ socketpair: JSON, one message a line
    gateway      child.py ──► Gateway (server/gateway.py) ◄───────────┘

The supervisor opens the listening sockets and keeps them open, so that a gateway which dies strands no
connection. It reads the settings and divides them, starts, watches and replaces the gateways, and is the
process that signals, the service manager, ``vipsrv reload`` and a successor talk to. No client does.
"""
