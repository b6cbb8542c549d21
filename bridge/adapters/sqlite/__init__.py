"""The store and the embedded broker on SQLite."""
