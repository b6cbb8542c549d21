"""What listens: the health pages."""
