"""What training computes: draws, objective, optimiser, schedule, checkpoints. No model and no files of clips here."""
