"""The limit of open files of this process."""

import resource

import typer


def allow_open_files(wanted: int) -> None:
    """Raise the limit to at least ``wanted``. Raises ``typer.BadParameter`` if the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted > hard != resource.RLIM_INFINITY:
        raise typer.BadParameter(f"{wanted} open files are needed, but 'ulimit -Hn' allows {hard}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
