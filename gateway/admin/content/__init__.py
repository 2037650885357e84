"""Stored prompts and answers: reading them, deleting them, choosing whose are stored."""
