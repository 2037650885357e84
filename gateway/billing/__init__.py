"""Billing: statements per team and month, closed periods, exports and the sinks they go to."""
