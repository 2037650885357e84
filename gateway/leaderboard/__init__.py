"""Rankings: boards over the rollups, records and milestones, the datasets API."""
