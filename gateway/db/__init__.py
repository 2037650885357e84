"""The database: engine, tables, units of work and migrations. SQL dialects stop here and in the repositories."""
