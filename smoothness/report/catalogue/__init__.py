"""The catalogue of activations as readers see it: a table, JSON, and a page with one figure a family."""

from smoothness.report.catalogue.entries import Entry, entries, records
from smoothness.report.catalogue.listing import listing
from smoothness.report.catalogue.write import write_catalogue

__all__ = ["Entry", "entries", "listing", "records", "write_catalogue"]
