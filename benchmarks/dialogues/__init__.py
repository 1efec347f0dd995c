"""Side-by-side runs of the dialogue steps against peers. Each prints ratios measured in one run on one machine."""
