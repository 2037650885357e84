"""What is true of each engine kind, once: probes, metric names, overload, cancellation, body fields."""
