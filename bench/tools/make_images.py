"""Make the test images that are missing, and print the path, dimensions and size of each.

    python -m bench.tools.make_images [NAME …] [--list] [--no-giants] [--cache DIR]

The other commands make the images that they need; this one prepares a machine for them.
"""

import time
from pathlib import Path
from typing import Annotated

import pyvips
import typer

from bench.images import CACHE_VARIABLE, IMAGES, cache_folder, image_file


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Images to make. [default: all]")] = None,
    *,
    only_list: Annotated[bool, typer.Option("--list", help="List the images and make nothing.")] = False,
    giants: Annotated[
        bool, typer.Option(help="Make the giants, too: those of 48 MB, and of 100 megapixels and more.")
    ] = True,
    cache: Annotated[
        Path | None, typer.Option(envvar=CACHE_VARIABLE, help="The folder to keep the images in.")
    ] = None,
) -> None:
    """Make the missing images; print path, dimensions and size of each."""
    if only_list:
        for name, recipe in IMAGES.items():
            print(f"{name:25} {recipe.description}")
        return
    for name in names or [name for name, recipe in IMAGES.items() if giants or not recipe.giant]:
        started = time.monotonic()
        try:
            path = image_file(name, cache)
            header = pyvips.Image.new_from_file(str(path))
        except KeyError as error:
            raise typer.BadParameter(error.args[0]) from None
        except (OSError, pyvips.Error) as error:
            typer.echo(f"{name} could not be made in {cache or cache_folder()}: {error}", err=True)
            raise typer.Exit(1) from None
        megabytes = path.stat().st_size / 1e6
        seconds = time.monotonic() - started
        print(f"{path}  {header.width} x {header.height}  {megabytes:.3f} MB  ({seconds:.1f} s)", flush=True)


if __name__ == "__main__":
    typer.run(main)
