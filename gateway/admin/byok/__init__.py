"""Keys that teams bring along for external APIs."""
