"""Teams: who pays."""
