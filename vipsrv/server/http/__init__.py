"""HTTP/1.1: requests and replies on the wire, and the routes that answer them."""
