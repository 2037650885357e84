"""Pickers: the order in which scored candidates are tried."""
