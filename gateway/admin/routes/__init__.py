"""Explaining a routing decision."""
