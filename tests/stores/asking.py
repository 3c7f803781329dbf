"""What tests of single leaves share: a source that is asked in this process."""

from pathlib import Path

from runtime.objects import Listing
from runtime.sources import Source


def brought(source: Source, listing: Listing, directory: Path) -> bytes:
    """The bytes of the first object, fetched there with all the others."""
    source.fetch(listing.objects, directory)
    return (directory / listing.objects[0].name).read_bytes()
