"""The protocols between the parts: source, sink, ledger, deliveries, broker."""
