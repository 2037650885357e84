"""Managing the gateway over HTTP, one folder per noun. Everything here needs a management key."""
