"""Messaging providers' delivery statuses, pushed: polled once, published as typed events, delivered until accepted."""

__version__ = "0.1.0"
