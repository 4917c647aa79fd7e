"""Fuzz targets: each feeds arbitrary bytes to one parser that reads data which others may have forged."""
