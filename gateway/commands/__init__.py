"""What the commands of ``weir`` do: a module per group.

A command imports what it needs in its own function, so that a command line is parsed in a tenth of a second and a
process holds only what it runs: most of an idle process's memory, and most of its time to start, are imports.
"""
