"""From the configuration file to checked settings and installed plugins."""
