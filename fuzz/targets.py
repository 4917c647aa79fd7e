"""All fuzz targets by name."""

from fuzz import channel, protocol, readers

TARGETS = {target.name: target for target in (*protocol.TARGETS, *channel.TARGETS, *readers.TARGETS)}
