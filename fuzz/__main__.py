"""Runs fuzz targets with atheris: ``python -m fuzz [--seconds 60] [TARGET …]``, all of them by default.

Each target runs in its own process, because libFuzzer ends the process. Inputs that reach new code are kept
in ``fuzz/corpus/TARGET``, and inputs that show a bug in ``fuzz/corpus/crashes``.
"""

import argparse
import subprocess
import sys
from pathlib import Path

_CORPUS = Path(__file__).parent / "corpus"
_LONGEST_INPUT = 8192  # bytes: above the largest message of fixed size, the handshake of a worker
_SECONDS_AN_INPUT = 10
_MEMORY_MB = 2048


def main() -> int:
    """Run the targets; 1 if one of them found a bug."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="names of targets; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="how long each runs (60)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _fuzz(arguments.targets[0], arguments.seconds)
    from fuzz.targets import TARGETS  # noqa: PLC0415 - `_fuzz` has to import it under instrumentation

    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    failed = []
    for name in arguments.targets or TARGETS:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "fuzz", "--one", "--seconds", str(arguments.seconds), name]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"found a bug: {', '.join(failed)}" if failed else "no bugs found")
    return 1 if failed else 0


def _fuzz(name: str, seconds: int) -> None:
    """Run one target until the time is over or a bug is found; does not return."""
    import atheris  # noqa: PLC0415 - installed only for fuzzing

    with atheris.instrument_imports(include=["vipsrv"]):
        from fuzz.targets import TARGETS  # noqa: PLC0415 - instrumented as it is imported
    target = TARGETS[name]
    corpus, crashes = _CORPUS / name, _CORPUS / "crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST_INPUT}",
        f"-timeout={_SECONDS_AN_INPUT}",
        f"-rss_limit_mb={_MEMORY_MB}",
        f"-artifact_prefix={crashes}/{name}-",
        "-print_final_stats=1",
    ]

    def run(data: bytes) -> None:
        target.accepts(data)

    atheris.Setup([sys.argv[0], *options, str(corpus)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
