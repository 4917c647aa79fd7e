"""The use of libvips through pyvips that all formats and steps share."""
