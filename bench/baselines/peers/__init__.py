"""Other image servers, if they are installed, each with fair settings.

The settings are those that the server's documentation recommends for throughput, and those that make the task
the same: the cores, a stretch to the target, a JPEG of quality 85 that is not progressive, no metadata, no
cache.

============ =================================================================================
``sharp``    sharp in a small Node HTTP server (``sharp_server``), the image in a POST
``thumbor``  thumbor, the image in a file
``imgproxy`` imgproxy, the image in a file
============ =================================================================================

A server that reads the image from a file has no upload to receive, which is in its favour.
"""
