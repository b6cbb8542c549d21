"""What things are, and pure decisions about them."""
