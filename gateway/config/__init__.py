"""The configuration file: its shape, its checks, the snapshot made from it, and its reload.

Nothing is imported here: a keeper, and a command that becomes one, needs the snapshot only, and reading the file takes
a fifth of the time in which they start.
"""
