"""Decisions that are kept: what was decided, all it was decided from, and what came of it."""
