"""What a training would take, before it starts."""
