"""The agent and its clients as Greengrass components: built at the bench, published by other tools."""
