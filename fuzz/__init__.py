"""Fuzz targets: each feeds arbitrary bytes to one parser of vipsrv that reads what others may have forged."""
