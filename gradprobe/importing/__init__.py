"""What other tools recorded of a training, as a run that the diagnosis reads."""
