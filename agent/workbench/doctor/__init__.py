"""What this device can run models on. Imports nothing that the device half has not."""
