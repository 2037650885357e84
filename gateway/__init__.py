"""Weir: one endpoint for every app, your own GPUs and external APIs behind it, every token metered once.

The layers and their direction are described in ``docs/architecture.md`` and enforced by import-linter.
"""

__version__ = "0.1.0"
