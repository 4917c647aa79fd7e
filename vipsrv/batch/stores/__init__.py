"""Where images come from and where results go: folders, buckets, and lists of keys."""
