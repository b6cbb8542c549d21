"""The providers that come with the bridge, and the polite HTTP client that they share."""
