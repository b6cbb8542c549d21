"""Speed and frugality of the bridge, each beside its bare loop and beside its peers, in one run on real servers."""
