"""Leases and quotas that several processes share."""
