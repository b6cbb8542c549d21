"""Tools for asyncio and threads that know nothing of the domain."""
