"""Install the peers that come from package registries, outside the repository.

    python -m bench.tools.install_peers [sharp] [thumbor]

The versions of sharp and thumbor are fixed in ``bench.baselines.peers``, so that results of different days
can be compared.
"""

import subprocess
from typing import Annotated

import typer

from bench.baselines.peers import sharp, thumbor
from bench.baselines.peers.folder import peers_folder

INSTALLERS = {"sharp": sharp.install, "thumbor": thumbor.install}


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
