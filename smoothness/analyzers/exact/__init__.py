"""Exact distances to the decision boundary, family by family; `ExactDistance` is the analyzer."""
