"""Query and candidate towers, rating heads, and the result of training."""
