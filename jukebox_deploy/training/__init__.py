"""Training: from batches to weights; what is trained is a checkpoint bundle like any other."""
