"""Which options this pipeline carries out; the others are refused by name and never silently ignored."""

from vipsrv.errors import BadRequest
from vipsrv.options import ResizeOptions, ResizeRequest

_OFFERED = {"width", "height", "quality", "background"}


def only_output(request: ResizeRequest) -> ResizeOptions:
    """The one result that is asked for. Raises ``BadRequest`` for what is not offered."""
    if len(request.outputs) != 1:
        raise BadRequest("outputs: several results of one upload are not offered by this server")
    options = request.outputs[0]
    for name, value in options.to_meta().items():  # those that are not default
        if name not in _OFFERED:
            raise BadRequest(f"{name}: {value} is not offered by this server")
    exact_size(options)
    return options


def exact_size(options: ResizeOptions) -> tuple[int, int]:
    """Width and height in pixels. Raises ``BadRequest`` where one is left open."""
    if options.width is None or options.height is None:
        raise BadRequest("width, height: both are needed")
    return options.width, options.height
