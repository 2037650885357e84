"""Credits: what a team has left."""
