"""Parts of `train_job`: what a run is asked to do, the models that it trains, their bundles, and reports."""
