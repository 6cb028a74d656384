"""Frozen language models that answer: local ones, servers, and one for tests that only repeats what it is told."""
