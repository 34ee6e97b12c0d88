"""What looks on while a run goes: callables that take the run's events. Nothing flows back from them."""
