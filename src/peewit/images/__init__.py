"""Picture files, and what a network reads of them."""
