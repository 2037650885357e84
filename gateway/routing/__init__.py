"""The decision: candidates, filters, scorers, picker, and the explanation of what they did."""
