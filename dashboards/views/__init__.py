"""The pages, a module for each; each has its ``PAGES``."""
