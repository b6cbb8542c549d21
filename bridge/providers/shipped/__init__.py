"""The definitions that come with the bridge, a YAML file for each."""
