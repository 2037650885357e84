"""Leaves of the import graph: values and Protocols that every layer may use. No I/O happens here."""
