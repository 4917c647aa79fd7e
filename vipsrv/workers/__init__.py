"""The worker processes: ``child`` is what runs in one, ``pool`` keeps them from the gateway's side."""
