"""Training of the query tower over the order of events."""

from shortlist.export.training.order.training import order_epochs, train_order

__all__ = ["order_epochs", "train_order"]
