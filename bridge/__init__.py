"""Messaging providers' delivery statuses, pushed: polled once, published as typed events, delivered until taken."""

__version__ = "0.1.0"
