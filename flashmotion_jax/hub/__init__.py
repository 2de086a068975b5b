"""Downloads of published weights and data sets: what there is, where it is, and its transfer."""
