"""Building blocks of the HTML pages that corpora, pairs and training runs leave: self-contained, safe, readable."""
