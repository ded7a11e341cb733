"""What chooses the sub-network at run time."""
