"""What a load ran on, as its record holds it."""

import os
import platform

from bench.load.record import Machine
from bench.machine import commit, processor
from vipsrv.version import __version__


def this_machine() -> Machine:
    """The machine, the interpreter and the commit."""
    return Machine(
        processor=processor(),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        python=platform.python_version(),
        vipsrv=__version__,
        commit=commit(),
    )
