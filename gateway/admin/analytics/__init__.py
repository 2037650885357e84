"""Analytics: questions to the rollups."""
