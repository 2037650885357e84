"""Filters: what must not or cannot serve a request."""
