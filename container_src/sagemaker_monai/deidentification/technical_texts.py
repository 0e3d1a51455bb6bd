"""Texts that are kept: the attributes of VR LO, SH and UC that may have one, and their known words.

PS3.15 keeps every text that its table does not list, and names turn up in all of them. So a text is kept only in an
attribute of the table below, for the reason given there, and only if it is one of the attribute's known words. Another
text becomes a keyed word (`pseudonyms.keyed_word`) if it is needed to distinguish or match pictures, or is removed.
Codes are in `coded_entries`.
"""

import re
from dataclasses import dataclass
from typing import Literal

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from sagemaker_monai.images.dicom.elements import tag_of

Otherwise = Literal["keyed word", "empty", "dummy", "remove"]


@dataclass(frozen=True)
class TechnicalText:
    """The allowed texts of one attribute.

    Attributes:
        words: in capitals -> as written.
        pattern: other allowed values, too short to identify anybody.
        otherwise: what to do with any other value.
        reason: why the attribute is kept at all.
    """

    words: dict[str, str]
    reason: str
    pattern: re.Pattern[str] | None = None
    otherwise: Otherwise = "remove"


def _words(text: str) -> dict[str, str]:
    return {word.upper(): word for word in text.split("|")}


# First words of makers' names; anything after the longest match is cut off.
_VENDORS = _words(
    "GE MEDICAL SYSTEMS|GE HEALTHCARE|GE|GEMS|SIEMENS|SIEMENS HEALTHINEERS|Siemens Healthcare|Philips|"
    "Philips Medical Systems|Philips Healthcare|TOSHIBA|TOSHIBA_MEC|CANON|CANON_MEC|HITACHI|"
    "Hitachi Medical Corporation|FUJI PHOTO FILM|FUJIFILM|Agfa|AGFA-GEVAERT|CARESTREAM|CARESTREAM HEALTH|KODAK|"
    "EASTMAN KODAK COMPANY|KONICA MINOLTA|HOLOGIC|LORAD|SAMSUNG|SAMSUNG MEDISON|MEDISON|MINDRAY|SHIMADZU|UIH|"
    "UNITED IMAGING|NEUSOFT|ESAOTE|ACUSON|ATL|ALOKA|BRUKER|VARIAN|ELEKTA|ACCURAY|ELSCINT|PICKER|MARCONI|ADAC|CTI|CPS|"
    "MEDISO|SOPHA|SMV|DIGIRAD|SPECTRUM DYNAMICS|OLYMPUS|PENTAX|CARL ZEISS MEDITEC|TOPCON|HEIDELBERG ENGINEERING|NIDEK|"
    "OPTOVUE|LEICA|HAMAMATSU|APERIO|3DHISTECH|VENTANA|VIDAR|LUMISYS|SWISSRAY|STERLING|IMAGING DYNAMICS|DEL MEDICAL|"
    "LODOX|PLANMED|PLANMECA|SIRONA|KAVO|VATECH|TERARECON|VITAL IMAGES|VITAL|VITREA|MERGE|OSIRIX|HOROS|BRAINLAB|"
    "RAYSEARCH|NOMOS|SONOSITE|ZONARE|SUPERSONIC IMAGINE|TERASON|B-K MEDICAL|BK MEDICAL|QIICR|HERMES|PMOD|MEDIS|TOMTEC|"
    "INVIVO|CONFIRMA|ICAD|R2 TECHNOLOGY|SECTRA|IMS GIOTTO|METALTRONICA|VIEWORKS|RAYENCE|TRIXELL|DRTECH|ANALOGIC|"
    "IMAGING BIOMETRICS|MIM SOFTWARE|ITK|DCMTK|OFFIS|HIGHDICOM|PYDICOM|3D SLICER|MATLAB|GDCM|CEMAX-ICON|ISG|MEDRAD"
)
_VENDOR = re.compile(
    "(" + "|".join(re.escape(name) for name in sorted(_VENDORS, key=len, reverse=True)) + r")(?![A-Z0-9])"
)

_MODELS = _words(
    "LightSpeed|LightSpeed VCT|LightSpeed16|LightSpeed Ultra|LightSpeed Plus|LightSpeed QX/i|LightSpeed Pro 16|"
    "LightSpeed Pro 32|LightSpeed RT|LightSpeed RT16|LightSpeed Power|LightSpeed Xtra|BrightSpeed|BrightSpeed S|"
    "HiSpeed CT/i|HiSpeed|HiSpeed QX/i|Discovery CT750 HD|Discovery CT590 RT|Discovery ST|Discovery STE|Discovery LS|"
    "Discovery RX|Discovery 690|Discovery 710|Discovery MI|Discovery MR750|Discovery MR750w|DISCOVERY MR750|"
    "Revolution CT|Revolution EVO|Revolution HD|Revolution Frontier|Optima CT520|Optima CT540|Optima CT660|"
    "Optima MR450w|SIGNA Architect|SIGNA Artist|SIGNA Premier|SIGNA Voyager|SIGNA HDx|SIGNA HDxt|SIGNA EXCITE|"
    "GENESIS_SIGNA|GENESIS_HISPEED_RP|Signa HDxt|Senographe Essential|Senographe DS|Senographe Pristina|Millennium VG|"
    "MILLENNIUM MG|Infinia|LOGIQE9|LOGIQ E9|Vivid E9|Vivid7|Sensation 4|Sensation 10|Sensation 16|Sensation 40|"
    "Sensation 64|Sensation Cardiac|Sensation Open|Emotion|Emotion 6|Emotion 16|Volume Zoom|SOMATOM PLUS 4|"
    "SOMATOM Definition|SOMATOM Definition AS|SOMATOM Definition AS+|SOMATOM Definition Flash|SOMATOM Definition Edge|"
    "SOMATOM Force|SOMATOM Drive|SOMATOM go.Top|SOMATOM go.Up|SOMATOM X.cite|NAEOTOM Alpha|SOMATOM Emotion|"
    "SOMATOM Perspective|SOMATOM Scope|Spirit|Biograph 6|Biograph 16|Biograph 40|Biograph 64|Biograph128|"
    "Biograph mCT|Biograph_mMR|Biograph64_Vision 600|1080|1094|Avanto|Aera|Skyra|Espree|Symphony|SymphonyTim|"
    "Sonata|Trio|TrioTim|Prisma|Prisma_fit|Verio|Allegra|Harmony|MAGNETOM Vida|MAGNETOM ESSENZA|MAGNETOM VISION|"
    "Magnetom Expert|Terra|Spectra|Amira|Sola|Lumina|ECAT|HR+|Mammomat Inspiration|AXIOM Aristos|Fluorospot Compact FD|"
    "Brilliance 6|Brilliance 10|Brilliance 16|Brilliance 16P|Brilliance 40|Brilliance 64|Brilliance Big Bore|iCT 128|"
    "iCT 256|iCT SP|Ingenuity CT|Ingenuity Core|IQon - Spectral CT|Mx8000|Mx8000 IDT 16|MX 16-slice|Gemini|GEMINI TF|"
    "Allegro Body|Guardian Body|Vereos PET/CT|Achieva|Achieva dStream|Ingenia|Ingenia Elition X|Ingenia Ambition X|"
    "Intera|Intera Achieva|Panorama|Gyroscan NT|Gyroscan Intera|Eclipse 1.5T|DigitalDiagnost|MicroDose|iE33|EPIQ 7C|"
    "HDI 5000|Aquilion|Aquilion ONE|Aquilion PRIME|Aquilion CX|Aquilion LB|Aquilion Lightning|Aquilion Prime SP|"
    "Asteion|Activion16|Titan|Vantage Titan|Vantage Galan 3T|MRT50H1|Aplio|ECLOS|SCENARIA|Oasis|AIRIS|Echelon|Supria|"
    "Selenia|Selenia Dimensions|Lorad Selenia|3Dimensions|uCT 760|uCT 530|uMR 780|uMI 780|CR 85|ADC_5146|FCR|DRX-1|"
    "DRX-Revolution|DirectView DR 7500|TomoTherapy|TrueBeam|Eclipse|Pinnacle3|MOSAIQ|OsiriX|"
    "3D Slicer|IB Delta Suite|dcmqi"
)
_KERNELS = _words(
    "STANDARD|STND|SOFT|DETAIL|BONE|BONEPLUS|EDGE|LUNG|CHEST|ULTRA|PERFORMANCE|HD STANDARD|HD DETAIL|HD LUNG|HD BONE|"
    "A|B|C|D|E|F|L|UA|UB|UC|YA|YB|YC|YD|YE|SA|SB|SC|EA|EB|EC|ED|ES|IA|IB|XCA|XCB|XCC|XCD|CB|CC|CD|"
    "BODY SHARP|LUNG SHARP|BODY STANDARD|NONE|SHARP|SMOOTH|MEDIUM|BRAIN|HEAD|BODY|XRES"
)
_BOWTIES = _words(
    "0|1|2|NONE|BODY FILTER|HEAD FILTER|LARGE BOWTIE FIL|MEDIUM BOWTIE|SMALL BOWTIE|MEDIUM FILTER|LARGE FILTER|"
    "SMALL FILTER|FLAT|WEDGE|WEDGE_0|WEDGE_1|WEDGE_2|WEDGE_3|BUTTERFLY|STRIP|MULTIPLE|SHAPED|BOWTIE|ALUMINUM|COPPER|"
    "MOLYBDENUM|RHODIUM|NIOBIUM|EUROPIUM|LEAD|SILVER|TIN|CU|AL|UB|UA|UC|B|A|AIR|CARDIAC FILTER"
)
_UNITS = _words("OD|HU|US|MGML|Z_EFF|ED|EDW|HU_MOD|PCT|BQML|NORMALIZED|CNTS|PROPCNTS|GML|CM2ML|SUV|1/MIN|NONE")
_ANATOMIC_ORIGINS = _words(
    "IC|OM|SN|SP|XY|LC|EM|EA|ILIAC CREST|ORBITAL-MEDIAL|STERNAL NOTCH|SYMPHYSIS PUBIS|XIPHOID|XYPHOID|"
    "LOWER COASTAL MARGIN|EXTERNAL AUDITORY MEATUS|SLIDE_CORNER|CORNEAL_VERTEX_R|CORNEAL_VERTEX_L|CORNEAL_VERTEX_B"
)
_WINDOWS = _words(
    "WINDOW1|WINDOW2|WINDOW3|ALGO1|ALGO2|NORMAL|HARDER|SOFTER|BRAIN|SOFT_TISSUE|SOFT TISSUE|LUNG|BONE|ABDOMEN|"
    "MEDIASTINUM|LIVER|HEAD|SPINE|CHEST|PELVIS|LINEAR|USER|DEFAULT"
)
_NUCLEI = _words("1H|H|HYDROGEN|2H|3HE|7LI|13C|17O|19F|23NA|31P|39K|129XE")
_ROUTES = _words("IV|I.V.|INTRAVENOUS|ORAL|ORAL & IV|RECTAL|INTRATHECAL|INTRAARTERIAL|INTRA-ARTERIAL|INTRA-ARTICULAR")
_SEQUENCES = re.compile(
    r"\*?(?:se|tse|tir|ir|fl|tfl|ep|epse|epfid|gre|h|hfl|spc|spcir|spcR|fi|tfi|fm|tgse|de|me|swi|tr|qt)"
    r"(?:[23]d)?[1-9]?\d?(?:_\d{1,3})?(?:ns|sp|rn|rt|tb|r|t|c|b)?"
)
_SIEMENS_KERNEL = re.compile(r"[BDHIJQSTU][a-z]?\d\d[a-z]?|\d|FC\d\d")
_TELLS_APART = "distinguishes volumes of one series, and scanners or reconstructions that a label may depend on"

_TABLE: dict[str, TechnicalText] = {
    "Manufacturer": TechnicalText(_VENDORS, "a label, or text in pictures, may depend on it", otherwise="empty"),
    **dict.fromkeys(
        (
            "SecondaryCaptureDeviceManufacturer", "ModifyingDeviceManufacturer", "DetectorManufacturerName",
            "ReceiveCoilManufacturerName", "TransmitCoilManufacturerName",
        ),
        TechnicalText(_VENDORS, "who made a part of the scanner, or of what captured its screen"),
    ),
    "ManufacturerModelName": TechnicalText(_MODELS, _TELLS_APART, otherwise="keyed word"),
    "SoftwareVersions": TechnicalText({}, _TELLS_APART, otherwise="keyed word"),
    "ConvolutionKernel": TechnicalText(_KERNELS, _TELLS_APART, _SIEMENS_KERNEL, "keyed word"),
    "FilterType": TechnicalText(_BOWTIES, _TELLS_APART, otherwise="keyed word"),
    "SequenceName": TechnicalText({}, _TELLS_APART, _SEQUENCES, "keyed word"),
    "PulseSequenceName": TechnicalText({}, _TELLS_APART, otherwise="keyed word"),
    "StackID": TechnicalText({}, "frames of one stack belong together", re.compile(r"\d{1,3}"), "keyed word"),
    "ReceiveCoilName": TechnicalText(_words("BODY|HEAD|B|S"), _TELLS_APART, otherwise="keyed word"),
    "TransmitCoilName": TechnicalText(_words("BODY|HEAD|B"), _TELLS_APART, otherwise="keyed word"),
    "RescaleType": TechnicalText(_UNITS, "the unit of the values"),
    "ModalityLUTType": TechnicalText(_UNITS, "the unit of the values"),
    "PositionReferenceIndicator": TechnicalText(_ANATOMIC_ORIGINS, "where coordinates begin", otherwise="empty"),
    "WindowCenterWidthExplanation": TechnicalText(_WINDOWS, "which window is which"),
    "ImagedNucleus": TechnicalText(_NUCLEI, "what was measured"),
    "ContrastBolusRoute": TechnicalText(_ROUTES, "how contrast was given"),
    "RadiopharmaceuticalRoute": TechnicalText(_ROUTES, "how the tracer was given"),
    "ImageGeometryType": TechnicalText(_words("PLANAR"), "retired; says that the picture is flat"),
    "DimensionDescriptionLabel": TechnicalText({}, "a keyword of DICOM, which says what a dimension is"),
    "EthnicGroup": TechnicalText({}, "a free text; removed even if the patient's characteristics are kept"),
    # Mandatory attributes with unknown contents.
    **dict.fromkeys(
        (
            *("SegmentLabel", "SegmentAlgorithmName", "AlgorithmName", "AlgorithmVersion", "RTImageLabel"),
            *("LUTLabel", "LUTExplanation"),
        ),
        TechnicalText({}, "the object must have one", otherwise="dummy"),
    ),
    "ContentDescription": TechnicalText({}, "the object must have one", otherwise="empty"),
}  # fmt: skip
TECHNICAL_TEXTS: dict[int, TechnicalText] = {tag_of(keyword): row for keyword, row in _TABLE.items()}
_DIMENSION_LABEL = tag_of("DimensionDescriptionLabel")


def technical_word(tag: int, value: str) -> str | None:
    """A value as the attribute's known word, in the spelling used here; None if it is not one."""
    row = TECHNICAL_TEXTS.get(tag)
    if row is None:
        return None
    if row.words is _VENDORS:
        match = _VENDOR.match(value.upper())
        return _VENDORS[match[1]] if match else None
    if tag == _DIMENSION_LABEL:
        keyword = value.replace(" ", "")
        known = tag_for_keyword(keyword)
        return keyword if known is not None and keyword_for_tag(known) == keyword else None
    if (word := row.words.get(value.upper())) is not None:
        return word
    return value if row.pattern is not None and row.pattern.fullmatch(value) else None
