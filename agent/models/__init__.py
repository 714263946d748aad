"""Who may run: the models of this device, their states, who waits for them, and the registry that names them."""
