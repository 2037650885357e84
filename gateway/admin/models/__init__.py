"""Models that backends offer."""
