"""Workspaces: teams with members and budgets."""
