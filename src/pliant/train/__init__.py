"""Training: executes a plan on a model, from a recipe."""
