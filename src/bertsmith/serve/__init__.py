"""Models behind HTTP: dynamic batches, bounded queues, one static page."""
