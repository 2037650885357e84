"""Who may do what: inference keys, management keys, principals and limits."""
