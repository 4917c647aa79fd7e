"""Checks of arguments that several commands make before they start, as callbacks for typer."""

from pathlib import Path

import typer

from bench.images import IMAGES


def known_image(name: str) -> str:
    """Check that ``IMAGES`` has the name. Raises ``typer.BadParameter``."""
    if name not in IMAGES:
        raise typer.BadParameter(f"{name} is unknown; known are {', '.join(IMAGES)}")
    return name


def known_images(names: list[str] | None) -> list[str] | None:
    """Check several names, if any are given. Raises ``typer.BadParameter``."""
    return None if names is None else [known_image(name) for name in names]


def in_a_folder(path: Path | None) -> Path | None:
    """Check that the folder of an output file exists, if one is given. Raises ``typer.BadParameter``."""
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"{path}: there is no folder {path.parent}")
    return path
