"""Where uploads and results are held between clients and workers: buffers in memory and unlinked files."""
