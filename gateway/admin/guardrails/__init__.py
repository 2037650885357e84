"""Guardrails: what keys may use and spend."""
