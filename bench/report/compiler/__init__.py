"""What each release of a compiler did to the same programs."""
