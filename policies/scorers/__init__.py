"""Scorers: how good a candidate is on one aspect, 0 to 1."""
