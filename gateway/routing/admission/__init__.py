"""Admission: who goes now, who waits for a fair turn, and who is turned away, when a model's replicas are full."""
