"""What the server offers over HTTP: the paths for images, and the documents that describe them."""
