"""All fuzz targets by name."""

from fuzz import animations, channel, http, protocol, readers

TARGETS = {
    target.name: target
    for target in (*protocol.TARGETS, *http.TARGETS, *channel.TARGETS, *readers.TARGETS, *animations.TARGETS)
}
