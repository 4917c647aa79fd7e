"""Workers that answer at once: everything of a server but the decoding and encoding of images.

``environment`` is for a server whose workers are to be like this. Python imports ``sitecustomize`` of this
folder when a process starts; in a worker it puts ``instant_pipeline`` in the place of the pipeline.
"""

import os
from pathlib import Path

from bench import ROOT


def environment() -> dict[str, str]:
    """Return the variables of a server with such workers."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT)])}
