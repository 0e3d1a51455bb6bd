"""People are found in every spelling, alphabet and encoding, and nowhere else."""

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from sagemaker_monai.deidentification.bulk import odds_of
from sagemaker_monai.deidentification.identity import Identity, identity_of
from sagemaker_monai.deidentification.matcher import DATE, NAME, NUMBER, PLACE, UID, Matcher
from sagemaker_monai.deidentification.profile import Action, action_of
from sagemaker_monai.errors import CallerError
from sagemaker_monai.images.dicom.headers import quiet_pydicom, read_header
from tests.attacks.people import AROUND, ENCODINGS, KINDS, NATIONAL, PEOPLE, header_of, name_texts
from tests.support.places import SHARED_DATA

LONG_NAMES = [person for person in PEOPLE if not person.name.startswith("Wu")]
SEEDS = st.integers(0, 1 << 62)


@pytest.fixture(autouse=True)
def _quiet():
    quiet_pydicom()


def matcher_of(person):
    return Matcher(identity_of(header_of(person)))


def look_in_text(seed):
    draw = random.Random(seed)
    person = draw.choice(PEOPLE)
    around = draw.choice([" ", "_", "-", "/", " (", ", "])
    text = KINDS[draw.choice(list(KINDS))](person, draw)
    assert matcher_of(person).in_text(draw.choice(AROUND) + around + text + around + draw.choice(AROUND)), (
        person,
        text,
    )


def look_in_bytes(seed):
    """Names of more than two letters, which occur in every header, and complete numbers and dates."""
    draw = random.Random(seed)
    person = draw.choice(LONG_NAMES)
    text = draw.choice([name_texts(person, draw), person.number, f"{person.born:%d.%m.%Y}", f"{person.born:%Y%m%d}"])
    encoding = draw.choice(ENCODINGS * 4 + NATIONAL)
    try:
        value = text.encode(encoding)
    except UnicodeError:
        return
    if encoding in ("shift_jis", "euc_jp", "gb18030", "euc_kr", "iso2022_jp") and max(text) < "\u3000":
        return  # other alphabets in East Asian encodings are usually found only as the header writes them
    before = draw.choice([b"\x08\0\x70\0LO\x10\0", b"\x28\0\x00\x20OB\0\0\x18\0\0\0", b"\xff\xfe\0\x0b"])
    data = before + value + b" \x18\0\x60\0DS\x04\x00120 "
    assert matcher_of(person).in_bytes(data), (person, text, encoding)


def look_in_bulk(seed):
    draw = random.Random(seed)
    parts = [(part, each) for each in PEOPLE for part in each.name.split("^") if part.isascii() and part.isalpha()]
    name, person = draw.choice([(part, each) for part, each in parts if len(part) > 6])
    text = draw.choice([name, name.upper(), f"{person.born:%Y%m%d}", f"{person.born:%d.%m.%Y}"])
    value = text.encode(draw.choice(ENCODINGS))
    noise = np.random.default_rng(seed)
    data = bytearray(noise.normal(noise.uniform(0, 255), 20, 40_000).clip(0, 255).astype(np.uint8).tobytes())
    place = draw.randrange(len(data) - len(value))
    data[place : place + len(value)] = value
    assert matcher_of(person).in_bulk(bytes(data)), (person, text)


PLACES = {"text": look_in_text, "bytes": look_in_bytes, "bulk": look_in_bulk}


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_a_person_is_found_in_any_spelling(place, seed):
    PLACES[place](seed)


@pytest.mark.attacks
@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=10_000, deadline=None)
@given(seed=SEEDS)
def test_a_person_is_found_in_any_spelling_at_length(place, seed):
    PLACES[place](seed)


SMITH = Identity(
    names=frozenset({"Smith^Zebulon", "Wu^Li"}),
    numbers=frozenset({"MRN-778899", "A12", "+49 89 4561237"}),
    places=frozenset({"St. Elsewhere Hospital", "Hauptstraße 12, 80331 München"}),
    dates=frozenset({"19490228", "20200301"}),
    uids=frozenset({"1.2.3.4.7", "1.2.826.0.1.3680043.2.1125.778"}),
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *((text, NAME) for text in (
            "SmithZebulon seen", "ZebulonSmith1949", "smithzebulon1949", "Z_Smith", "SMITHZEB", "S M I T H", "Smi-th",
            "wu", "WULI", "LiWu1949", "Ｓｍｉｔｈ", "Ѕmіth", "Sm\u200bith", "Zebulo^S.mith", "%53mith", "&#83;mith",
            "U21pdGggWmVidWxvbg==", "536d697468205a", "htimS.nolubeZ", "Smith\u0308",
        )),
        *((text, NUMBER) for text in (
            "MRN778899", "778899", "7788", "77 88 99", "778-899", "x7788y", "9778899", "A12", "A-12", "a 12",
            "+49 89 4561237", "089 4561237", "00498945612", "80331",
        )),
        *((text, DATE) for text in (
            "28.02.1949", "28/2/49", "2-28-1949", "28 Feb 1949", "Feb 28, 49", "28. Februar 1949", "28 février 1949",
            "28 de febrero de 1949", "28.II.1949", "19490228101112", "490228", "1949-02", "Feb 1949", "1949059",
            "٢٨/٠٢/١٩٤٩", "1949年2月28日", "20200301",
        )),
        *((text, PLACE) for text in ("Elsewhere CT3", "HAUPTSTRASSE", "Klinik Muenchen")),
        *((text, UID) for text in ("1.2.3.4.7", "x 1.2.3.4.7.5", "3680043.2.1125.778")),
    ],
)  # fmt: skip
def test_every_usual_spelling_counts(text, kind):
    assert Matcher(SMITH).in_text(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        "syngo MR E11", "VB10A syngo CT 2009E", "B30f", "1.0", "1.2.840.10008", "GE MEDICAL SYSTEMS", "5.3.0.0",
        "STANDARD", "Hospital", "LightSpeed VCT", "07MW18.4", "HiSpeed CT/i", "Aquilion ONE", "512", "MRN", "A1",
        "A123", "lightly", "wuss", "28.02", "1949", "2020", "February", "29 Feb 1948", "1.2.826.0.1.3680043", "77",
        "899", "",
    ],
)  # fmt: skip
def test_what_only_resembles_does_not_count(text):
    assert Matcher(SMITH).in_text(text) == ""


def test_of_many_people_only_whole_words_and_numbers_count():
    many = Matcher(SMITH)

    assert [bool(many.in_text(text, parts=False)) for text in ("x/smith/1", "778899.dcm", "28.02.1949")] == [True] * 3
    assert [many.in_text(text, parts=False) for text in ("x/blacksmith", "7788.dcm", "1949-02", "28.02.49")] == [""] * 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(), max_size=4), st.text(), st.binary())
def test_any_header_can_be_searched_for_in_any_data(values, text, data):
    given_values = frozenset(values)
    everything = Matcher(Identity(given_values, given_values, given_values, given_values, given_values))

    for found in (everything.in_text(text), everything.in_text(text, parts=False), everything.in_name(text),
                  everything.in_number(text), everything.in_bytes(data), everything.in_bulk(data)):  # fmt: skip
        assert found in ("", NAME, NUMBER, PLACE, DATE, UID)


def test_names_of_files_may_count_them():
    assert Matcher(SMITH).in_name("a/IM_7788.dcm") == ""
    assert Matcher(SMITH).in_name("a/IM_778899.dcm") == NUMBER
    assert Matcher(SMITH).in_name("JSMITHZ.dcm") == NAME
    assert Matcher(SMITH).in_name("490228/1.dcm") == DATE


def test_a_number_of_a_picture_is_not_compared_in_parts():
    assert [Matcher(SMITH).in_number(text) for text in ("7788", "1024", "778899", "-778899.0")] == [
        "",
        "",
        NUMBER,
        NUMBER,
    ]


def test_what_a_header_says_of_people_is_gathered_from_every_depth():
    code, person, institution, header = Dataset(), Dataset(), Dataset(), Dataset()
    code.CodeValue, code.CodeMeaning = "EMP-90210", "Doolittle, John"
    person.PersonIdentificationCodeSequence, person.PersonTelephoneNumbers = [code], "+1 555 0199"
    institution.CodeValue, institution.CodeMeaning = "H1", "General Elsewhere"
    header.OperatorIdentificationSequence, header.InstitutionCodeSequence = [person], [institution]
    header.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    header.PatientComments = "seen by Dr. Quixotic on 3.4.1999, tel 040 555 123, j.doe@clinic.example"
    header.AcquisitionDateTime, header.StudyDate = "20200301101112.5", "1999.12.31"
    header.SeriesDescription, header.SoftwareVersions = "Axial Head", "VB17"

    found = identity_of(header)

    assert {"Doolittle, John", "Quixotic", "山田^太郎", "やまだ^たろう", "Yamada^Tarou"} == found.names
    assert {"EMP-90210", "+1 555 0199", "040 555 123", "j.doe@clinic.example", "H1"} == found.numbers
    assert found.places == {"General Elsewhere"}
    assert found.dates == {"20200301", "19991231", "19990403"}


@pytest.mark.parametrize("needle", [b"smith", b"zebulon", b"19490228", b"mrn-778899", b"28.02.1949"])
def test_no_noise_has_a_text_more_often_than_its_odds_say(needle):
    mean, odds = statistics.mean(needle), odds_of(needle)
    chances = []
    for deviation in np.geomspace(0.5, 60, 100):
        normal = statistics.NormalDist(mean, float(deviation))
        chances.append(math.prod(normal.cdf(byte + 0.5) - normal.cdf(byte - 0.5) for byte in needle))

    assert max(chances) <= odds * 1.1
    assert max(chances) >= odds / 2


@pytest.mark.parametrize("seed", range(4))
def test_noise_and_slopes_hold_nobody(seed):
    noise = np.random.default_rng(seed)
    grains = noise.normal(noise.uniform(45, 115), noise.uniform(1, 9), 1 << 18).clip(0, 255)
    slopes = np.cumsum(noise.integers(-1, 2, 1 << 18))

    for values in (grains, slopes, np.arange(1 << 18)):
        assert Matcher(SMITH).in_bulk(values.astype(np.uint8).tobytes()) == ""
        assert Matcher(SMITH).in_bulk(values.astype("<u2").tobytes()) == ""


def technical_texts(path):
    try:
        header = read_header(path)
    except CallerError:
        return []
    return [
        str(value)
        for element in header
        if element.VR in ("CS", "LO", "SH") and action_of(element.tag, element.VR) is Action.KEEP and element.value
        for value in ([element.value] if isinstance(element.value, str) else element.value)
    ]


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no shared data")
@pytest.mark.parametrize("every", [14, pytest.param(1, marks=pytest.mark.attacks)])
def test_real_technical_texts_hold_none_of_other_people(every):
    paths = [path for path in sorted(SHARED_DATA.rglob("*")) if path.is_file() and "dicom" in str(path)]
    texts = {text for path in paths[::every] for text in technical_texts(path)}
    assert len(texts) > 50

    found = [(person.name, text) for person in PEOPLE for text in texts if matcher_of(person).in_text(text)]

    assert [each for each in found if "fedorov" not in each[1]] == []  # in a link to a program's source: Fyodor's name
