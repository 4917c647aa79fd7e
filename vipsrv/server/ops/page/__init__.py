"""The page of the ops listener: its files, and how they become one document."""
