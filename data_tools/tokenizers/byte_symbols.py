"""The characters in which GPT-2's vocabularies write bytes."""


def byte_symbols() -> list[str]:
    """GPT-2's printable character for each byte value: itself where printable, else U+0100 upwards."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
