"""What an operator of the server sees: health, metrics and the live page, at the ops listener."""
