"""What a listing could not give: folders that cannot be read, names that are no text, and the like."""

from dataclasses import dataclass, field

MOST_EXAMPLES = 20
"""Sentences that are kept; the others are only counted."""


@dataclass(slots=True)
class LeftOut:
    """How many folders and files a listing has left out, and why, with the first of them as examples.

    They are no rows of the manifest: it is not known whether they are images. A run tells them at its end.
    ``faults`` of them could not be listed, and may be images; the others are never followed, by intention.
    """

    count: int = 0
    faults: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, what: str, *, fault: bool = False) -> None:
        """Count one; ``what`` is a sentence with its name and the reason."""
        self.count += 1
        self.faults += fault
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(what)
