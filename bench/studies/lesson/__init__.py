"""What a reader of the lesson gains end to end: its own program against `python -m models.training`."""
