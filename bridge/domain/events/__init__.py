"""The events of the bridge's own sources, by provider: models alone, which anybody may import."""
