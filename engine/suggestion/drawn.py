"""The order `random`: a draw, for those who want no model's opinion, and to compare with."""

from hashlib import sha256

from engine.suggestion.seen import Box, Doubt, Seen


def drawn(seen: Seen, *, seed: int = 0) -> Doubt:
    """A number that depends on seed and name alone, so that the order of the others stays as images go.

    Returns:
        A score in [0, 1), uniform over names; no place is better than another.
    """
    digest = sha256(f"{seed}:{seen.name}".encode()).digest()

    def words(box: Box) -> str:
        return f"drawn at random, seed {seed}"

    return Doubt(int.from_bytes(digest[:6], "big") / 2**48, None, words)
