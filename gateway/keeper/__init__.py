"""The process per host that owns database writes, the shipper and the limits, and how others talk to it."""
