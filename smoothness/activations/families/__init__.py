"""The activations, one module a family; `catalogue` lists them all."""
