"""The small world that mini is trained on, its training, and its scorer."""
