"""The console's part of the keeper: users, their roles and sessions, the audit log, and what pages ask of the books."""
