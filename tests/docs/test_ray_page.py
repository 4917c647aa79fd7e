"""The commands on the page about Ray are commands that we have."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from vipsrv.cli.batch import batch_app
from vipsrv.cli.default_command import DEFAULT_COMMAND

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "many-images-ray.md").read_text()
COMMANDS = re.findall(r"^vipsrv batch .*$|(?<=`)vipsrv batch [^`…]*(?=`)", PAGE, re.MULTILINE)


def test_there_are_commands() -> None:
    assert len(COMMANDS) == 4


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command: str) -> None:
    group = typer.main.get_group(batch_app)
    context = group.commands[DEFAULT_COMMAND].make_context(DEFAULT_COMMAND, shlex.split(command)[2:])
    assert context.params["engine"].value == ("ray" if "--engine ray" in command else "local")
