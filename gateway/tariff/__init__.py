"""The tariff: dated, immutable versions of what is charged and what it costs."""
