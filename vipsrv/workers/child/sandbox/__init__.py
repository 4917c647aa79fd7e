"""What a worker process may do: its end with the gateway, and the layers of its confinement.

::

    parent         it ends with the gateway, and only then
    confinement    the order of the layers, and what happens if one does not hold
    descriptors    no descriptor but the channel
    resources      limits of memory, files and threads
    privileges     a user of its own, no new privileges
    landlock       no files, no TCP, no signals
    seccomp        only the system calls of system_calls.py
    self_test      whether the layers hold
"""

from vipsrv.workers.child.sandbox.confinement import (
    Confinement,
    SandboxError,
    default_mode,
    layers_not_in_kernel,
)
from vipsrv.workers.child.sandbox.parent import die_with_parent, ignore_stop_signals

__all__ = [
    "Confinement",
    "SandboxError",
    "default_mode",
    "die_with_parent",
    "ignore_stop_signals",
    "layers_not_in_kernel",
]
