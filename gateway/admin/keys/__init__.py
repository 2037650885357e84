"""Inference keys: making, listing, changing, rotating and revoking them."""
