"""The organization: everybody who belongs to a workspace."""
