"""Raw text in, a BERT of your own out: trained, understood, made small, and served."""

__version__ = "0.1.0"
