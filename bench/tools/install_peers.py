"""Install the peers that come from package registries, outside the repository.

    python -m bench.tools.install_peers [sharp] [ipx] [thumbor] [imaginary] [nginx] [img2dataset]

It needs npm for sharp and ipx, Go, a C compiler and npm for imaginary, and Debian or Ubuntu for nginx. The
versions are fixed in ``bench.baselines.peers``, except nginx's, so that results of different days can be
compared. imgproxy, imagor and weserv are in no registry that this command uses: ``python -m
bench.tools.compare`` names the variable to set for each.
"""

import subprocess
from typing import Annotated

import typer

from bench.baselines.batch import img2dataset
from bench.baselines.peers import imaginary, ipx, nginx_image_filter, sharp, thumbor
from bench.baselines.peers.locate import peers_folder

INSTALLERS = {
    "sharp": sharp.install,
    "ipx": ipx.install,
    "thumbor": thumbor.install,
    "imaginary": imaginary.install,
    "nginx": nginx_image_filter.install,
    "img2dataset": img2dataset.install,
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Peers to install. [default: all]")] = None,
) -> None:
    """Install the peers; exits with 1 if one of them fails."""
    unknown = set(names or ()) - set(INSTALLERS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: known are {', '.join(INSTALLERS)}")
    failed = False
    for name in names or INSTALLERS:
        try:
            INSTALLERS[name]()
        except (OSError, subprocess.CalledProcessError) as error:
            typer.echo(f"{name} could not be installed: {error}", err=True)
            failed = True
        else:
            print(f"{name} is installed in {peers_folder() / name}")
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
