"""The caller's side: the server protocol, the dialects spoken on it, errors in each caller's shape."""
