"""Metering: every token into the journal, every journal record into the ledger, exactly once."""
