"""The connections of clients: one module for each protocol, and what they share."""
