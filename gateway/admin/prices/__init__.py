"""Prices: versions of what is charged and what it costs, margins."""
