"""A group of commands of which one needs no name: ``vipsrv batch SOURCE DESTINATION``.

What is named as another command of the group is that command. A folder of such a name is given as
``./status``.
"""

from typing import Any

from typer.core import TyperCommand, TyperGroup

DEFAULT_COMMAND = "run"
"""The name of the default command within the group. Nobody has to type it."""


class GroupWithDefault(TyperGroup):
    """Runs ``DEFAULT_COMMAND`` unless the first argument is the name of another command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the default command before arguments that name none."""
        other = bool(args) and args[0] in self.commands and args[0] != DEFAULT_COMMAND
        return super().parse_args(ctx, args if other else [DEFAULT_COMMAND, *args])


class DefaultCommand(TyperCommand):
    """The command without a name: its help and its errors call it by the name of the group."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments in the place of the group."""
        if parent is not None:
            info_name, parent = parent.info_name, parent.parent
        return super().make_context(info_name, args, parent=parent, **extra)
