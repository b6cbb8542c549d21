"""From a provider's page to committed events."""
