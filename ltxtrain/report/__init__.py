"""What a run shows afterwards: the page ``report.html`` and the model card, both made from the run folder alone."""
