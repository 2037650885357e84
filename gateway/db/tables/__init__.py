"""All tables. Importing this package fills ``SQLModel.metadata``, which the migrations are compared with."""
