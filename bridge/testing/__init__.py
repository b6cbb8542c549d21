"""What plugin authors test with: contract suites, doubles with faults on demand, and private servers."""
