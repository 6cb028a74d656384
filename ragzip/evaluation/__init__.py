"""Evaluation: what compression costs, what it saves, and whether a difference is real."""
