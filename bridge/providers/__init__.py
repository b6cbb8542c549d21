"""Providers as data: the vocabulary of a definition, how its file is read, and the definitions that ship."""
