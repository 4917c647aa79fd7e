"""Tests of vipsrv.protocol."""
