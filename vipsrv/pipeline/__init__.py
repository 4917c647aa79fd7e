"""From the bytes of a picture to the bytes of another: the only folder that imports pyvips.

Read ``resize.py`` first: it holds the list of steps. Each step is a small file of its own name.

====================  ==================================================================
``start``             once for a process: every format tried out
``libvips``           what libvips may read; its errors made presentable
``upload``            a picture as it came: bytes in memory, or a file's descriptor
``header``            which format it is and what its header says, nothing decoded
``offered``           the options that are carried out; others are refused
``signatures``        the names of formats that are not read, for a helpful refusal
``opening``           headers that would take too long to read
``limits``            what is refused by its header alone
``cost``              the memory and time that a job will take, and whether it may
``layout``            what the file's bytes tell of that
``resize``            the list of steps, and one job through it
``job``               what the steps may know of the job
``background``        transparency is laid on a colour
``shrink``            decode and resize in one, upright
``srgb``              8-bit sRGB in three bands, whatever it was
``encode``            the result's bytes
``stopping``          gives up in the middle of a decode
====================  ==================================================================
"""

from vipsrv.pipeline.cost import LIGHT, NeedsHeavyLane
from vipsrv.pipeline.header import read_info
from vipsrv.pipeline.libvips import version
from vipsrv.pipeline.limits import Limits
from vipsrv.pipeline.offered import only_output
from vipsrv.pipeline.resize import Result, resize
from vipsrv.pipeline.start import start
from vipsrv.pipeline.upload import Upload

__all__ = [
    "LIGHT",
    "Limits",
    "NeedsHeavyLane",
    "Result",
    "Upload",
    "only_output",
    "read_info",
    "resize",
    "start",
    "version",
]
