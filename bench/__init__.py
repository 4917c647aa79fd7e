"""The benchmarks of vipsrv. README.md in this folder says how to run them and how to read the results.

=========== ====================================================================================
suites/     the pytest-benchmark suites: ``python -m pytest bench``
tools/      one command a file: ``python -m bench.tools.NAME``; ``gate`` holds the limits
load/       the load generator: ``python -m bench.load``
report/     charts and an HTML page from the JSON files of the others: ``python -m bench.report``
baselines/  what vipsrv is compared with: bare loops, codecs alone, other servers
measuring/  a server process, CPU time, memory, system calls; processes that work in a closed loop
=========== ====================================================================================

``images.py`` draws the test images, ``image_quality.py`` compares results with references, ``wire.py`` is the
client that all of them use, ``arguments.py`` checks arguments of commands. ``limits.toml`` holds the limits
of the gate.
"""

from pathlib import Path

BENCH = Path(__file__).parent
"""This folder."""

ROOT = BENCH.parent
"""The folder that ``bench`` is imported from; the working directory of the processes that import it."""
