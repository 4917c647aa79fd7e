"""Sessions of the task runner: ``nox -l`` lists them, ``nox -s NAME`` runs one.

nox rather than just or make: it is a Python package like everything else here, so it needs no further
installation, and it makes the environment of each session. CI's ``.ci/run`` does not need it.
"""

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.sessions = ["lint", "types", "tests", "docs"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
SUITE = ("tests", "bench", "examples", "fuzz", "pyproject.toml")
"""What the tests need besides the package."""


def _install(session: nox.Session, *requirements: str) -> None:
    # The libvips of the wheel: pip would build pyvips against the system's where it has headers.
    session.install(*requirements, env={"PKG_CONFIG_LIBDIR": "/nonexistent"})


@nox.session(python=["3.11", "3.12", "3.13"])
def all_pythons(session: nox.Session) -> None:
    """The tests on each Python that is supported, as far as it is installed."""
    _install(session, "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests; arguments after ``--`` are pytest's."""
    _install(session, "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and its format; the Dockerfile and the scripts of the container image."""
    _install(session, "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    if shutil.which("hadolint", path=session.bin):  # its wheel is for x86-64 Linux only
        session.run("hadolint", "docker/Dockerfile")
    else:
        session.log("not made: hadolint is not installed")
    of_checks = ("docker/ci/check", "docker/ci/check-compose")
    of_image = ("docker/lock", "docker/image/entrypoint", "docker/image/healthcheck")
    session.run("shellcheck", "-x", "-P", "SCRIPTDIR", *of_checks, *of_image)


@nox.session
def types(session: nox.Session) -> None:
    """Strict types."""
    _install(session, "-e", ".[dev]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site in ``site/``, warnings as errors; ``-- serve`` shows it while you write."""
    _install(session, "-e", ".[docs]")
    command = session.posargs or ["build", "--strict"]
    session.run("mkdocs", *command, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """The quick benchmarks, held against their limits."""
    _install(session, "-e", ".[dev]")
    result = str(Path(session.create_tmp()) / "bench.json")
    session.run("pytest", "bench", "--quick", "--benchmark-json", result)
    session.run("python", "-m", "bench.tools.gate", result, "--again")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz targets; arguments after ``--`` are those of ``python -m fuzz``."""
    _install(session, "-e", ".[dev,fuzz]")
    session.run("python", "-m", "fuzz", *session.posargs)


@nox.session
def http_check(session: nox.Session) -> None:
    """Schemathesis against a real server, by its OpenAPI document."""
    _install(session, "-e", ".[test,http-check]")
    session.run("pytest", "tests/system/test_schemathesis.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines the tests run, servers and workers included, as a table and in ``htmlcov/``."""
    _install(session, "-e", ".[test,coverage]")
    session.run("coverage", "erase")
    # In every process coverage itself imports what these tests want to be absent.
    left_out = "--deselect=tests/test_imports.py::test_importing_a_part_leaves_the_others_unloaded"
    session.run("coverage", "run", "-m", "pytest", left_out, *session.posargs)
    # 1: a worker was killed while it wrote its file.
    session.run("coverage", "combine", "--quiet", success_codes=[0, 1])
    session.run("coverage", "html", "--quiet")
    session.run("coverage", "report")


@nox.session
def wheel(session: nox.Session) -> None:
    """Run the tests against the wheel in an empty environment; ``-- WHEEL`` takes one that is built."""
    session.install("build")
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    if session.posargs:
        built = Path(session.posargs[0]).resolve()
    else:
        session.run("python", "-m", "build", "--wheel", "--outdir", str(folder / "dist"))
        (built,) = (folder / "dist").glob("vipsrv-*.whl")
    # The tests without the sources beside them: what is imported is what was installed.
    suite = folder / "suite"
    suite.mkdir(parents=True)
    for name in SUITE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, suite / name)
    for path in ROOT.glob("*.md"):
        shutil.copy2(path, suite)
    python = folder / "venv" / "bin" / "python"
    session.run("python", "-m", "venv", "--without-pip", str(folder / "venv"))
    _install_into(session, python, f"{built}[test]")
    session.chdir(suite)
    # The documentation includes files of the sources.
    session.run(str(python), "-m", "pytest", "--ignore=tests/docs", external=True)


def _install_into(session: nox.Session, python: Path, requirement: str) -> None:
    session.run(
        *("python", "-m", "pip", "--python", str(python), "install", "--quiet", requirement),
        env={**os.environ, "PKG_CONFIG_LIBDIR": "/nonexistent"},
    )
