"""Training: the recipe, the loop, and everything around them."""
