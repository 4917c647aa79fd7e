"""The steps of a resize, one file each; ``vipsrv/pipeline/resize.py`` lists them in their order."""
