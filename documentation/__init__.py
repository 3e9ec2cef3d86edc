"""Pages that are made when the documentation is built: from cards, settings, help texts and docstrings."""
