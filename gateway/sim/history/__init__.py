"""A past for the demo: made up from a seed and the statistics of recorded clients; wherever it is shown, it says so."""
