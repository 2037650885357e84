"""The lab: replays a trace against routing policies on a simulated fleet, in virtual time."""
