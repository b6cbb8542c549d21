"""Providers' pushes: how each kind is verified, and how its body is read."""
