"""Forms: how an event becomes an HTTP request, as a structure with expressions at its leaves."""
