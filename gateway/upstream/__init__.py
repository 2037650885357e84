"""Talking to backends: the HTTP client, one attempt, the failover walk, and the API that engines speak."""
