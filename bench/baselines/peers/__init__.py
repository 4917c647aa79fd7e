"""Other image servers, if they are installed, each with fair settings.

The settings are those that the server's documentation recommends for throughput, and those that make the task
the same: the cores, a stretch to the target, a JPEG of quality 85 that is not progressive, no metadata, no
cache. A server that takes uploads gets the image in a POST. Any other reads it from a file of its own disk:
it has no upload to receive, which is in its favour, and the tables say so.

====================== ======================================================== ======
``sharp``              sharp in a small Node HTTP server (``sharp_server``)     upload
``imagor``             imagor                                                   upload
``imaginary``          imaginary                                                upload
``ipx``                ``ipx serve``                                            file
``thumbor``            thumbor                                                  file
``imgproxy``           imgproxy                                                 file
``weserv``             weserv's module in nginx                                 file
``nginx_image_filter`` nginx with its own module                                file
====================== ======================================================== ======

``locate`` says where their programs are looked for, and ``python -m bench.tools.install_peers`` installs
those that package registries have. ``http_peer``, ``file_reader`` and ``nginx_server`` are what some of them
share.
"""
