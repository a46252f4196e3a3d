"""Speculative decoding: proposing tokens, verifying them in one pass, and the loop over turns, in one program."""
