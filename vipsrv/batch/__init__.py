"""Resizes many images: those of a folder, a bucket or a list, on this machine or on a cluster.

::

    source ──► filters ──► selection ──► shards ──► engine ──► destination
    (lists      (names,     (what the     (up to     (local:    (results by name,
     images)     sizes,      manifest      2,000      a server   the manifest in .vipsrv/)
                 dates)      has not)      images)    here; ray)

Everything goes through ``vipsrv.client``: the images are decoded by servers only.
"""
