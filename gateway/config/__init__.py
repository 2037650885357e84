"""The configuration file: its shape, its checks, the snapshot made from it, and its reload."""

from gateway.config.load import load
from gateway.config.problem import ConfigError, Problem
from gateway.config.snapshot import ConfigSnapshot
from gateway.config.watcher import ConfigWatcher

__all__ = ["ConfigError", "ConfigSnapshot", "ConfigWatcher", "Problem", "load"]
