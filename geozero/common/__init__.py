"""What every other package may use: errors, atomic files, child processes, the terminal."""
