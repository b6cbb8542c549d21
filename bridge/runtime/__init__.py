"""Assembly of the configured parts, and the long-lived process."""
