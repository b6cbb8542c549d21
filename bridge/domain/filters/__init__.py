"""Filters over the content of events: read, checked against what events can say, and compiled to closures."""
