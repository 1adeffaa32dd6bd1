"""What every backend needs to know of a network and its training, and the step itself; nothing of it knows a device."""
