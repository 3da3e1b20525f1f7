"""From judged trials to files that others deploy: chosen, perhaps trained longer, written, verified, described."""
