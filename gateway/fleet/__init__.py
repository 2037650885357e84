"""What is known of each backend now: static facts, live load, health, and the view policies read."""
