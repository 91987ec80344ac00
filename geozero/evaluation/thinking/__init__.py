"""Where thinking pays, measured before any training; and what a small model of training makes of it."""
