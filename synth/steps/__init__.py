"""The steps of a fold (pretraining, linear probing, fine-tuning), and the plan that runs them."""
