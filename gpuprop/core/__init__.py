"""What every backend needs to know of a network and its training, and the step itself; all of it fits any device."""
