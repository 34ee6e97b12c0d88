"""What is done with clips before a training: looking at them, fetching, cutting and captioning. No torch."""
