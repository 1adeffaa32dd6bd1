"""What a user holds: the network, and the file that keeps it."""
