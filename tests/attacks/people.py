"""People with names in several alphabets, and ways in which others write their names, numbers and dates.

The spellings are written by hand, or made by rules that share nothing with the code that searches for them.
"""

import random
import unicodedata
from dataclasses import dataclass
from datetime import date

from pydicom import Dataset


@dataclass(frozen=True)
class Person:
    """Somebody with a header.

    Attributes:
        name: PatientName.
        family: spellings of the family name, also in other alphabets.
        given: of the given name.
        number: PatientID.
        born: PatientBirthDate.
        charset: of the header.
    """

    name: str
    family: tuple[str, ...]
    given: tuple[str, ...]
    number: str
    born: date
    charset: str = "ISO_IR 192"


PEOPLE = (
    Person("Smith^Zebulon", ("Smith", "SMITH"), ("Zebulon",), "MRN-778899", date(1949, 2, 28)),
    Person("Müller^Jörg", ("Müller", "Mueller", "Muller", "MÜLLER"), ("Jörg", "Joerg", "JORG"), "4711-0815",
           date(1962, 11, 3)),
    Person("Mueller^Joerg", ("Müller", "Mueller"), ("Jörg", "Joerg"), "P0047110815", date(1970, 12, 31)),
    Person("Groß^Änne", ("Groß", "Gross", "GROSS"), ("Änne", "Aenne", "Anne"), "G 55.66.77", date(1933, 7, 14)),
    Person("Sørensen^Åse", ("Sørensen", "Soerensen", "Sorensen"), ("Åse", "Aase", "Ase"), "DK150787-1234",
           date(1987, 7, 15)),
    Person("Wu^Li", ("Wu", "WU"), ("Li", "LI"), "A12", date(2001, 10, 9)),
    Person("O'Dea^Tim", ("O'Dea", "ODEA", "O Dea"), ("Tim",), "93847561", date(1955, 5, 5)),
    Person("García Márquez^José", ("García", "Garcia", "MÁRQUEZ", "Marquez"), ("José", "Jose"), "ES/2938/4756",
           date(1944, 4, 17)),
    Person("Łukasiewicz^Żaneta", ("Łukasiewicz", "Lukasiewicz"), ("Żaneta", "Zaneta"), "PL44051401458",
           date(1944, 5, 14)),
    Person("Nguyễn^Thị Hương", ("Nguyễn", "Nguyen", "NGUYEN"), ("Hương", "Huong"), "VN-202988", date(1999, 1, 30)),
    Person("Щербаков^Юрий", ("Щербаков", "ЩЕРБАКОВ", "Shcherbakov", "Schtscherbakow", "Scherbakov", "Ščerbakov"),
           ("Юрий", "Yuriy", "Jurij", "Iurii"), "РУ 112399", date(1958, 3, 21)),
    Person("Shcherbakov^Yury", ("Щербаков", "Shcherbakov"), ("Юрий",), "RU 1123991", date(1958, 3, 21)),
    Person("Хрущёв^Фёдор", ("Хрущёв", "Хрущев", "Khrushchev", "Chruschtschow"), ("Фёдор", "Fyodor", "Fedor"), "314159",
           date(1961, 8, 13)),
    Person("Παπαδόπουλος^Γιώργος", ("Παπαδόπουλος", "ΠΑΠΑΔΟΠΟΥΛΟΣ", "Papadopoulos"), ("Γιώργος", "Giorgos"), "GR271828",
           date(1968, 9, 1)),
    Person("Papadopoulos^Giorgos", ("Παπαδόπουλος", "Papadopoulos"), ("Γιώργος",), "GR2718281", date(1968, 9, 1)),
    Person("Yamada^Tarou=山田^太郎=やまだ^たろう", ("Yamada", "山田", "やまだ", "ヤマダ", "ﾔﾏﾀﾞ"),
           ("Tarou", "太郎", "タロウ"), "JP-567123", date(1975, 6, 6)),
    Person("Hong^Gildong=洪^吉洞=홍^길동", ("Hong", "HONG"), ("Gildong", "吉洞", "길동"), "KR-909192",
           date(1980, 2, 29)),
    Person("Wang^XiaoDong=王^小东", ("Wang", "WANG"), ("XiaoDong", "xiaodong", "小东"), "CN 8675309",
           date(1990, 12, 1)),
    Person("חדד^משה", ("חדד",), ("משה",), "IL-445566", date(1939, 10, 10)),
    Person("حداد^محمد", ("حداد",), ("محمد", "مُحَمَّد"), "EG-665544", date(1972, 1, 2)),
)  # fmt: skip

ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# Encodings other than Unicode that a header or a comment may have.
NATIONAL = (
    *("latin-1", "cp1252", "iso8859_2", "iso8859_5", "cp1251", "koi8_r", "iso8859_7", "cp1253", "gb18030", "euc_kr"),
    *("shift_jis", "euc_jp", "iso2022_jp", "iso8859_6", "iso8859_8", "cp1255", "cp1256"),
)
MONTHS = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}
# Words in the technical attributes of clean files, which identify nobody.
AROUND = ("", "syngo MR", "VB17", "recon", "HFS ", "v2", "#", "B30f")
WIDE = {ord(str(digit)): chr(0xFF10 + digit) for digit in range(10)}
ARABIC = {ord(str(digit)): chr(0x0660 + digit) for digit in range(10)}


def header_of(person: Person) -> Dataset:
    """A header with the person in it and nobody else."""
    header = Dataset()
    header.SpecificCharacterSet = person.charset
    header.PatientName, header.PatientID = person.name, person.number
    header.PatientBirthDate = f"{person.born:%Y%m%d}"
    return header


def name_texts(person: Person, draw: random.Random) -> str:
    """A way to write the name: any order and part of it, with and without separators, capitals, accents."""
    family, given = draw.choice(person.family), draw.choice(person.given)
    initial = given[:1]
    text = draw.choice(
        (
            family, f"{family} {given}", f"{given} {family}", f"{family}^{given}", f"{family}, {given}",
            f"{given}_{family}", f"{given}.{family}", f"{initial}. {family}", f"{initial}_{family}",
            f"{family}-{initial}", f"Dr. {family}", f"{family}{given}", f"{given}{family}",
        )
    )  # fmt: skip
    text = draw.choice((str, str.upper, str.lower, str))(text)
    return unicodedata.normalize(draw.choice(("NFC", "NFD", "NFC", "NFKC")), text)


def number_texts(person: Person, draw: random.Random) -> str:
    """A way to write the number: whole, its digits, and from six digits on a part or with other separators."""
    digits = "".join(c for c in person.number if c.isdigit())
    ways = [person.number, person.number.lower()]
    if len(digits) >= 6:
        start = draw.randrange(len(digits) - 5)
        ways += [digits, f"no{digits}", digits[start : start + 6], " ".join(digits[k : k + 2] for k in range(0, 6, 2))]
        ways += [f"{digits[:3]}-{digits[3:]}", digits.translate(WIDE), digits.translate(ARABIC)]
    return draw.choice(ways)


def date_texts(person: Person, draw: random.Random) -> str:
    """A way to write the date of birth."""
    born = person.born
    language = draw.choice(tuple(MONTHS))
    month = MONTHS[language].split()[born.month - 1]
    text = draw.choice(
        (
            f"{born:%Y%m%d}", f"{born:%d%m%Y}", f"{born:%m%d%Y}", f"{born:%Y-%m-%d}", f"{born:%d.%m.%Y}",
            f"{born.day}.{born.month}.{born.year}", f"{born.day}/{born.month}/{born.year}", f"{born:%m-%d-%Y}",
            f"{born:%Y/%m/%d}", f"{born:%d.%m.%y}", f"{born.day}. {month} {born.year}",
            f"{born.day} de {month} {born.year}", f"{month} {born.day}, {born.year}",
            f"{born.day}-{month[:4]}-{born.year}", f"{born:%Y%m%d}101112",
            f"{born:%Y-%m-%d}T10:11:12", f"{born.year}年{born.month}月{born.day}日", f"{born:%y%m%d}", f"{born:%Y-%m}",
            f"{month} {born.year}",
        )
    )  # fmt: skip
    return text.translate(draw.choice(({}, {}, WIDE, ARABIC)))


KINDS = {"name": name_texts, "number": number_texts, "date": date_texts}
