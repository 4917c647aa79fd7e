"""Servers of others, where they are installed: each in its own processes at its fair settings.

The settings are those that its own documentation gives for the most throughput, and what makes the task the
same: the cores, a stretch to the target, a JPEG of quality 85 that is not progressive, no metadata, no cache.

============ =================================================================================
``sharp``    sharp in a small Node HTTP server (``sharp_server``), the image in a POST
``thumbor``  thumbor, the image in a file
``imgproxy`` imgproxy, the image in a file
============ =================================================================================

An image that comes in a file spares the server its upload, which is in its favour.
"""
