"""Presets: named defaults of requests."""
