"""What the Directory keeps: its tables, the backends that hold them, and the transactions that change them."""
