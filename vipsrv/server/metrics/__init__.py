"""What the server counts about itself, and the page on which Prometheus reads it."""
