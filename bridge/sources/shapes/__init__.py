"""How providers are followed, apart from any provider: slices of a window, spans of a request, positions of a feed."""
