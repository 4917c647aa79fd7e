"""libvips through pyvips: what is common to all formats and steps."""
