"""What a record is, where records lie, and the names in them."""
