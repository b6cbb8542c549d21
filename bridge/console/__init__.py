"""The console: pages to look at in a browser, and the read API that serves the same facts."""
