"""What `make docs` makes pages of besides docs/*.md: the parameters and the changelog."""
