"""The server's log: one line for each event and each request, as JSON or for people."""
