# SPDX-License-Identifier: Apache-2.0
"""Whatever a guest named its files, the names of a download do no harm, differ from each other, and are the same each time; what is
changed is told. What is harmless is asked here in the words of Windows' documentation, not by what the code replaces."""

from __future__ import annotations

import tracemalloc
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flr.errors import Corrupt
from flr.safe_names import LONGEST, SafeNames, safe_name

DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"} | {
    f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"
}
WORDS = (
    b"CON", b"nul.txt", b"Com1 .x", b"LPT9", b"aux.tar.gz", "COM¹.txt".encode(), b"conin$", b"con" + b" " * 260 + b"x",
    b"con" + b" " * 260 + b".txt", b"a.", b"a ", b"a. .", b"...", b" ", b"~", b"a:b", b"C:", b"\\\\srv\\x", b"..\\..\\x", b"a\nb",
    b"\x7f",
    "\u202egnp.exe".encode(), "a\u2028b".encode(), "é".encode(), "e\u0301".encode(), "É".encode(), "ß".encode(), b"SS", b"A", b"a",
    "ﬁ".encode(), b"FI", "\u212a".encode(), b"k", "a\u200db".encode(), b"ab", b"a (2)", b"a (3)", b"A (2)", b"a_b", b"%41", b"\xff",
    b"%FF", b"%ff\xff", b"\xed\xa0\x80", b"x" * 255, b"x" * 256, b"X" * 255, b"x" * 300 + b".txt", "é".encode() * 200 + b".jpeg",
    b"con." + b"x" * 251,
    b"x" * 251 + b".txt", b"X" * 251 + b".txt", b"._", b".", b"x. " * 100, "𝄞".encode() * 64, b"a" * 30 + b"." + b"b" * 240,
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(WORDS),
    st.binary(min_size=1, max_size=300),
    st.text(min_size=1, max_size=120).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(alphabet="aA.: _%F2()\u0301é\u202e", min_size=1, max_size=6).map(str.encode),
).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))  # fmt: skip
POSSIBLE = NAMES.filter(lambda name: name not in (b".", b".."))


def harmless(name: str) -> None:
    assert not set(name) & set('<>:"/\\|?*')
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
    assert not any(
        unicodedata.bidirectional(c) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI") for c in name
    )
    assert name
    assert name[-1] not in ". "
    assert name.partition(".")[0].rstrip(" ").upper() not in DEVICES
    assert len(name.encode()) <= 255
    assert len(name.encode("utf-16-le")) <= 2 * 255


def alike(name: str) -> str:
    """What Windows and macOS take for the same has the same."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def placed(names: list[bytes]) -> tuple[list[str], list[tuple[bytes, str]]]:
    told: list[tuple[bytes, str]] = []
    names_of_folder = SafeNames(lambda old, new: told.append((old, new)))
    return [names_of_folder.path([b"folder", name], folder=False) for name in names], told


@given(POSSIBLE)
def test_a_name_is_harmless(name: bytes) -> None:
    harmless(safe_name(name))


@pytest.mark.parametrize("name", WORDS)
def test_a_known_trick_is_harmless(name: bytes) -> None:
    if name != b".":
        harmless(safe_name(name))


@given(
    st.text(
        st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters='<>:"/\\|?*\u061c\u200e\u200f'),
        min_size=1,
    )
)
@example("100%25.txt")
@example("Screenshot at 1.00.00\u202fPM.png")
@example("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.txt")
@example("👨\u200d👩\u200d👧.png")
@example("console.txt")
@example("COM10")
@example(".bashrc")
@example(" a")
def test_a_harmless_name_stays(name: str) -> None:
    device = name.partition(".")[0].rstrip(" ").upper() in DEVICES
    turning = any(
        unicodedata.bidirectional(c) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI") for c in name
    )
    if not device and not turning and name[-1] not in ". " and len(name.encode()) <= 255:
        assert safe_name(name.encode()) == name


@pytest.mark.parametrize(
    ("name", "made"),
    [
        (b"a:b", "a_b"), (b"C:", "C_"), (b"..\\..\\x", ".._.._x"), (b"a\n", "a_"), (b"a. .", "a___"), (b"...", "___"),
        (b"CON", "_CON"), (b"nul.tar.gz", "_nul.tar.gz"), ("\u202egnp.exe".encode(), "_gnp.exe"),
        (b"caf\xe9", "caf%E9"), (b"caf\xe9 100%25", "caf%E9 100%2525"), (b"\xe9 5%", "%E9 5%"), (b"\xed\xa0\x80", "%ED%A0%80"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_name(name: bytes, made: str) -> None:
    assert safe_name(name) == made


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0b", b"\0"])
def test_what_is_no_name_is_refused(name: bytes) -> None:
    with pytest.raises(Corrupt):
        safe_name(name)
    told: list[bytes] = []
    names = SafeNames(lambda old, new: told.append(old))
    for parts in ([name], [b"a", name], [name, b"a"]):
        with pytest.raises(Corrupt):
            names.path(parts, folder=False)
    assert not told


@pytest.mark.parametrize("extension", [".txt", ".jpeg", "." + "x" * 18])
def test_a_name_that_is_too_long_keeps_its_extension(extension: str) -> None:
    for letter in ("n", "é", "漢", "𝄞"):
        made = safe_name((letter * 300 + extension).encode())
        assert made.endswith(letter + extension)
        assert LONGEST - 3 <= len(made.encode()) <= LONGEST


@given(st.lists(POSSIBLE, max_size=30))
def test_no_two_in_a_folder_are_the_same(names: list[bytes]) -> None:
    made, told = placed(names)
    assert all(path.startswith("folder/") and path.count("/") == 1 for path in made)
    for path in made:
        harmless(path.removeprefix("folder/"))
    assert len({alike(path) for path in made}) == len(made)
    assert told == [
        (b"folder/" + old, new) for old, new in zip(names, made, strict=True) if new.encode() != b"folder/" + old
    ]
    assert placed(names)[0] == made


@given(st.characters(exclude_categories=("Cs", "Cc")))
def test_what_some_system_takes_for_the_same_is_told_apart(letter: str) -> None:
    """Upper, lower and title case, composed and decomposed."""
    others = {letter.upper(), letter.lower(), letter.title(), letter.casefold()}
    others |= {unicodedata.normalize(form, one) for form in ("NFC", "NFD") for one in [letter, *others]}
    for other in others - {letter}:
        made, _ = placed([f"a{letter}".encode(), f"a{other}".encode()])
        assert made[1].endswith(" (2)")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ab", "a\u200db"),
        ("ab", "\ufeffab"),
        ("ß", "SS"),
        ("\u212a", "k"),
        ("é.TXT", "E\u0301.txt"),
        ("i", "\u0131"),
        ("s", "\u017f"),
    ],
)
def test_what_looks_the_same_to_some_system_is_told_apart(one: str, other: str) -> None:
    for names in ([one, other], [other, one]):
        made, _ = placed([name.encode() for name in names])
        assert made[0] == f"folder/{names[0]}"
        assert " (2)" in made[1]


@given(st.lists(st.tuples(st.lists(POSSIBLE, max_size=3), st.booleans()), max_size=20))
def test_paths_are_those_of_their_folders(wanted: list[tuple[list[bytes], bool]]) -> None:
    """A tree in its order: each folder before what is in it, each once; a model that keeps everything tells the same names."""
    tree: dict[bytes, dict] = {}  # type: ignore[type-arg]
    for parts, _ in wanted:
        here = tree
        for part in parts:
            here = here.setdefault(part, {})
    told: list[tuple[bytes, str]] = []
    names = SafeNames(lambda old, new: told.append((old, new)))
    made: dict[tuple[bytes, ...], str] = {}

    def go(here: dict, above: tuple[bytes, ...]) -> None:  # type: ignore[type-arg]
        for part, inside in here.items():
            parts = (*above, part)
            made[parts] = names.path(parts, folder=bool(inside))
            go(inside, parts)

    go(tree, ())
    assert len({alike(path) for path in made.values()}) == len(made)
    for parts, path in made.items():
        assert path.count("/") == len(parts) - 1
        if len(parts) > 1:
            assert path.startswith(made[parts[:-1]] + "/")
        renamed = path.rpartition("/")[2].encode() != parts[-1]
        assert ((b"/".join(parts), path) in told) == renamed
    assert len(told) == sum(path.rpartition("/")[2].encode() != parts[-1] for parts, path in made.items())


def test_a_folder_that_was_renamed_has_what_is_in_it() -> None:
    told: list[tuple[bytes, str]] = []
    names = SafeNames(lambda old, new: told.append((old, new)), ["_RESTORE_REPORT.txt"])
    assert names.path([b"A"], folder=True) == "A"
    assert names.path([b"A", b"x"], folder=False) == "A/x"
    assert names.path([b"a"], folder=True) == "a (2)"
    assert names.path([b"a", b"nul"], folder=True) == "a (2)/_nul"
    assert names.path([b"a", b"nul", b"y"], folder=False) == "a (2)/_nul/y"
    assert names.path([b"a", b"x"], folder=False) == "a (2)/x"
    assert names.path([b"b", b"never told of", b"z"], folder=False) == "b/never told of/z"
    assert names.path([b"_restore_report.TXT"], folder=False) == "_restore_report (2).TXT"
    assert told == [(b"a", "a (2)"), (b"a/nul", "a (2)/_nul"), (b"_restore_report.TXT", "_restore_report (2).TXT")]


@pytest.mark.parametrize(
    "name",
    [
        lambda k: b"same\x01" if k % 2 else b"same\x02",
        lambda k: bytes(ord("aA"[k >> bit & 1]) for bit in range(12)),  # by case only
        lambda k: b"x" * 250 + b"%05d" % (k // 2) + b"\x01\x02"[k % 2 : k % 2 + 1],  # the same when they are cut
        lambda k: b"a (%d)" % k if k % 2 else b"a",  # whose numbers are taken
    ],
)
def test_many_that_are_the_same_do_not_take_their_square(
    name,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    import flr.safe_names

    count = 0
    bits = flr.safe_names._bits

    def counting(text: str) -> int:
        nonlocal count
        count += 1
        return bits(text)

    monkeypatch.setattr(flr.safe_names, "_bits", counting)
    made, _ = placed([name(k) for k in range(3000)])
    assert len(set(made)) == 3000
    for path in made:
        harmless(path.removeprefix("folder/"))
    assert count < 6 * 3000


def test_what_is_kept_does_not_grow_with_the_tree_nor_with_the_names() -> None:
    names = SafeNames(lambda old, new: None)
    for k in range(100):  # what is made once
        names.path([b"first", b"%d" % k], folder=False)
    tracemalloc.start()
    try:
        for folder in range(50):
            for k in range(200):
                names.path([b"folder %d" % folder, b"%0200d" % k], folder=False)
        several = tracemalloc.get_traced_memory()[0]
        for k in range(10_000):
            names.path([b"one", b"%0200d" % k], folder=False)
        one = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert several < 100_000
    assert one < 150 * 10_000
