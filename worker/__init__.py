"""The compute side: data sets, networks and the training loop that an experiment's message sets off."""
