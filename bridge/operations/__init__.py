"""What operators read and order: the same for the commands and for the console."""
