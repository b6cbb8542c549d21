"""HTTP clients: the polling client of the sources, and the guarded client of the sinks."""
