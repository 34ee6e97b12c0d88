"""Everything that can be decided without a GPU. No torch here and below."""
