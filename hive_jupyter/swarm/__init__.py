"""One worker's life, and many: everything here is ``async`` on one loop, or pure."""
