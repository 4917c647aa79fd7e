"""The connections of clients: one module for each protocol, and the modules that they share."""
