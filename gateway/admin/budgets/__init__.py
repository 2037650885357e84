"""Budgets: setting, listing and deleting them."""
