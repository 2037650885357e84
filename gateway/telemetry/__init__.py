"""Telemetry: logs, metrics and traces. Off or unread, they cost next to nothing; none of them can fail a request."""
