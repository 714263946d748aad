"""AWS IoT Greengrass: what a device's nucleus reads and says."""
