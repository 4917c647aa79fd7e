"""What several commands check of their arguments before they begin, as callbacks of typer."""

from pathlib import Path

import typer

from bench.images import IMAGES


def known_image(name: str) -> str:
    """The name, which is in ``IMAGES``. Raises ``typer.BadParameter``."""
    if name not in IMAGES:
        raise typer.BadParameter(f"{name} is unknown; known are {', '.join(IMAGES)}")
    return name


def known_images(names: list[str] | None) -> list[str] | None:
    """The same of several, where there are any."""
    return None if names is None else [known_image(name) for name in names]


def in_a_folder(path: Path | None) -> Path | None:
    """The file that is written at the end, if any: its folder is there. Raises ``typer.BadParameter``."""
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"{path}: there is no folder {path.parent}")
    return path
