"""Tiers: what is tried before what, whatever the scores."""
