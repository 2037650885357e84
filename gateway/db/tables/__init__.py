"""The tables, a module for each part; ``gateway.db.tables.every`` is all of them."""
