"""What the live view is made of: results are followed into a store, and a page shows what is there."""
