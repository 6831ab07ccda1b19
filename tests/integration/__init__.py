"""Tests of the client against servers on real sockets."""
