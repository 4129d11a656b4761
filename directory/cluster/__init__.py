"""What the Directory knows of the Stores and volumes as they are now, and how it calls them."""
