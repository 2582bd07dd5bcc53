"""Writers: (Graph, QuantPlan) to the bytes of a file, the same bytes every time."""
