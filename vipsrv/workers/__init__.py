"""The worker processes: ``pool`` manages them in the gateway, ``child`` is the program that they run."""
