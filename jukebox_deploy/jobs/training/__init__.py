"""The parts of `train_job`: the two kinds of model, their data, their bundles, what they show on the way."""
