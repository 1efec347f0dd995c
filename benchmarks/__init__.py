"""Side-by-side runs against peers. Each prints ratios measured in one run on one machine."""
