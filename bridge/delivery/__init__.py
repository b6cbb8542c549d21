"""From a sink's queue to the sink."""
