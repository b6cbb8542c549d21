"""The sinks that need no other distribution."""
