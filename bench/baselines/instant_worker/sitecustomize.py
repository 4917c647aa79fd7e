"""Imported by Python when a process starts: gives a worker of vipsrv the pipeline that answers at once."""

import sys

if "vipsrv.workers.child" in sys.orig_argv:
    from bench.baselines.instant_worker import instant_pipeline

    sys.modules["vipsrv.pipeline"] = instant_pipeline
