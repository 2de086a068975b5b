"""One file a run; each says its command, its hardware and what to expect."""
