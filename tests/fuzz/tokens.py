"""The token that no message may hold, and a search for it that shares nothing with `jvq_fast.redact`."""

TOKEN = "0a1b2c3d4e5f60718293a4b5c6d7e8fs"  # an s, since there are letters beyond ASCII that fold to it


def _letter(text: str, at: int, letter: str) -> int:
    """Where this letter of the token ends if it stands here, in any of its forms; else 0."""
    here = text[at : at + 1]
    if here == letter or here.lower() == letter or (here == "\u017f" and letter == "s"):
        return at + 1
    code = f"{ord(letter):02x}"
    if here == "%":
        for times in range(4):
            end = at + 1 + 2 * times + 2
            if text[at + 1 : end].lower() == "25" * times + code:
                return end
    slashes = at
    while text[slashes : slashes + 1] == "\\":
        slashes += 1
    if 1 <= slashes - at <= 4 and text[slashes : slashes + 5].lower() == f"u00{code}":
        return slashes + 5
    return 0


def blotted(text: str) -> str:
    """The text with *** for each token."""
    found, at = [], 0
    while at < len(text):
        end = at
        for letter in TOKEN:
            end = _letter(text, end, letter)
            if not end:
                break
        if end:
            found.append("***")
            at = end
        else:
            found.append(text[at])
            at += 1
    return "".join(found)


def forms() -> list[str]:
    """The token as servers might echo it."""
    percent = "".join(f"%{ord(c):02x}" for c in TOKEN)
    return [
        TOKEN,
        TOKEN.upper(),
        percent,
        percent.upper().replace("%", "%2525"),
        "".join(f"\\u00{ord(c):02x}" for c in TOKEN),
        percent[:30] + TOKEN[10:],
        TOKEN[:-1] + "\u017f",
        TOKEN[:-1],
    ]
