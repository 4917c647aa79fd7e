"""Uploads over HTTP that can be resumed: tus 1.0 with creation, expiration, termination and checksum."""
