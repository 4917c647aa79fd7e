"""Where the work is done: by a server on this machine, or by one on each node of a Ray cluster."""
