"""What is true of the clips, the models and this machine. Reads, decides nothing; no torch."""
