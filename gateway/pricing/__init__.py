"""Pricing: what tokens cost at given rates. Pure functions over integers."""
