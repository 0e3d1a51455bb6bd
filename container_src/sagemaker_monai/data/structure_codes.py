"""Codes of common structures and lesions, by the names that public data sets give them.

Names are those of TotalSegmentator, BTCV, AMOS, BraTS, KiTS, LiTS and others, in any case and spelling of blanks; left
and right, also as `_left` behind the name, become a modifier. Only a whole name counts: what is not in the table has a
private code of its own in answers, which is never wrong.

The codes are DICOM's (PS3.16, CID 7150, 7151, 7159, 7192); those that begin with C are of the NCI Thesaurus.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sagemaker_monai.data.label_names import alike_key
from sagemaker_monai.errors import DatasetError
from sagemaker_monai.tasks.label_codes import Code, LabelCodes, read_codes

SIDES = {"left": Code("SCT", "7771000", "Left"), "right": Code("SCT", "24028007", "Right")}
_SIDE = re.compile(r"(?i)^(left|right)[\s_-]+(.+)$|^(.+?)[\s_-]+(left|right)$")
# Of these left and right are two; a side of anything else, as of a liver, is a part of it, which has another code.
_PAIRED = frozenset({
    "kidney", "ureter", "renalpelvis", "adrenalgland", "adrenal", "renalartery", "renalvein", "ovary", "testis",
    "testicle", "seminalvesicle", "lung", "lungupperlobe", "lunglowerlobe", "bronchus", "pulmonaryartery",
    "pulmonaryvein", "brachiocephalicvein", "subclavianartery", "commoncarotidartery", "coronaryartery",
    "iliacartery", "iliacvein", "iliacvena", "breast", "hippocampus", "amygdala", "thalamus", "caudate",
    "caudatenucleus", "putamen", "pallidum", "globuspallidus", "accumbens", "nucleusaccumbens", "insula",
    "frontallobe", "temporallobe", "parietallobe", "occipitallobe", "lateralventricle", "opticnerve",
    "opticdisc", "eye", "eyeball", "lens", "eyelens", "parotidgland", "parotid", "submandibulargland",
    "submandibular", "rib", "ribs", "clavicle", "clavicula", "scapula", "humerus", "femur", "patella", "fibula",
    "ilium", "erectorspinae",
})  # fmt: skip

# Category -> names (`alike_key`, with blanks between them), code and meaning.
STRUCTURES: dict[tuple[str, str], tuple[tuple[str, str, str], ...]] = {
    ("91723000", "Anatomical Structure"): (
        ("liver", "10200004", "Liver"),
        ("spleen", "78961009", "Spleen"),
        ("kidney", "64033007", "Kidney"),
        ("gallbladder", "28231008", "Gallbladder"),
        ("pancreas", "15776009", "Pancreas"),
        ("stomach", "69695003", "Stomach"),
        ("esophagus oesophagus", "32849002", "Esophagus"),
        ("duodenum", "38848004", "Duodenum"),
        ("smallbowel smallintestine", "30315005", "Small intestine"),
        ("colon", "71854001", "Colon"),
        ("largeintestine largebowel", "14742008", "Large intestine"),
        ("cecum caecum", "32713005", "Cecum"),
        ("sigmoid sigmoidcolon", "60184004", "Sigmoid colon"),
        ("rectum", "34402009", "Rectum"),
        ("bladder urinarybladder", "89837001", "Bladder"),
        ("prostate", "41216001", "Prostate"),
        ("seminalvesicle", "64739004", "Seminal Vesicle"),
        ("testis testicle", "40689003", "Testis"),
        ("penis", "18911002", "Penis"),
        ("uterus", "35039007", "Uterus"),
        ("cervix cervixuteri", "71252005", "Cervix"),
        ("vagina", "76784001", "Vagina"),
        ("ovary", "15497006", "Ovary"),
        ("placenta", "78067005", "Placenta"),
        ("ureter", "87953007", "Ureter"),
        ("urethra", "13648007", "Urethra"),
        ("renalpelvis", "25990002", "Renal pelvis"),
        ("adrenalgland adrenal", "23451007", "Adrenal gland"),
        ("commonbileduct", "79741001", "Common bile duct"),
        ("bileduct", "28273000", "Bile duct"),
        ("aorta", "15825003", "Aorta"),
        ("inferiorvenacava ivc postcava", "64131007", "Inferior vena cava"),
        ("superiorvenacava svc", "48345005", "Superior vena cava"),
        ("portalvein", "32764006", "Portal vein"),
        ("splenicvein", "35819009", "Splenic vein"),
        ("hepaticvein", "8993003", "Hepatic vein"),
        ("superiormesentericartery", "42258001", "Superior mesenteric artery"),
        ("superiormesentericvein", "90771006", "Superior Mesenteric Vein"),
        ("celiactrunk celiacaxis coeliactrunk", "57850000", "Celiac Axis"),
        ("renalartery", "2841007", "Renal artery"),
        ("renalvein", "56400007", "Renal vein"),
        ("pulmonaryartery", "81040000", "Pulmonary artery"),
        ("pulmonaryvein", "122972007", "Pulmonary vein"),
        ("brachiocephalictrunk", "12691009", "Brachiocephalic trunk"),
        ("brachiocephalicvein", "8887007", "Brachiocephalic vein"),
        ("subclavianartery", "36765005", "Subclavian artery"),
        ("commoncarotidartery", "32062004", "Common carotid artery"),
        ("coronaryartery coronaryarteries", "41801008", "Coronary artery"),
        ("iliacartery", "10293006", "Iliac artery"),
        ("iliacvein iliacvena", "244411005", "Iliac vein"),
        ("lung", "39607008", "Lung"),
        ("lungupperlobe", "45653009", "Upper lobe of lung"),
        ("lungmiddlelobe lungmiddleloberight", "72481006", "Middle lobe of right lung"),
        ("lunglowerlobe", "90572001", "Lower lobe of lung"),
        ("trachea", "44567001", "Trachea"),
        ("bronchus", "955009", "Bronchus"),
        ("airway airways", "89187006", "Airway structure"),
        ("pleura", "3120008", "Pleura"),
        ("heart", "80891009", "Heart"),
        ("leftatrium heartatriumleft atriumleft", "82471001", "Left atrium"),
        ("rightatrium heartatriumright atriumright", "73829009", "Right atrium"),
        ("leftventricle heartventricleleft", "87878005", "Left ventricle"),
        ("rightventricle heartventricleright", "53085002", "Right ventricle"),
        ("heartmyocardium leftventriclemyocardium leftventricularmyocardium", "49848007", "Left Ventricle Myocardium"),
        ("pericardium", "76848001", "Pericardium"),
        ("thyroid thyroidgland", "69748006", "Thyroid"),
        ("breast", "76752008", "Breast"),
        ("brain", "12738006", "Brain"),
        ("hippocampus", "5366008", "Hippocampus"),
        ("amygdala", "4958002", "Amygdala"),
        ("thalamus", "42695009", "Thalamus"),
        ("caudate caudatenucleus", "11000004", "Caudate Nucleus"),
        ("putamen", "89278009", "Putamen"),
        ("pallidum globuspallidus", "14738005", "Globus Pallidus"),
        ("accumbens nucleusaccumbens", "427667007", "Nucleus Accumbens"),
        ("insula", "36169008", "Insula"),
        ("corpuscallosum", "88442005", "Corpus callosum"),
        ("cerebellum", "113305005", "Cerebellum"),
        ("brainstem", "119238007", "Brain Stem"),
        ("frontallobe", "83251001", "Frontal lobe"),
        ("temporallobe", "78277001", "Temporal lobe"),
        ("parietallobe", "16630005", "Parietal lobe"),
        ("occipitallobe", "31065004", "Occipital lobe"),
        ("lateralventricle", "66720007", "Lateral Ventricle"),
        ("thirdventricle 3rdventricle", "49841001", "Third ventricle"),
        ("fourthventricle 4thventricle", "35918002", "Fourth Ventricle"),
        ("spinalcord", "2748008", "Spinal cord"),
        ("pituitary pituitarygland", "56329008", "Pituitary"),
        ("opticnerve", "18234004", "Optic nerve"),
        ("opticchiasm", "244453006", "Optic chiasm"),
        ("opticdisc", "81016008", "Optic disc structure (body structure)"),
        ("eye", "81745001", "Eye"),
        ("eyeball", "79652003", "Eyeball"),
        ("lens eyelens", "78076003", "Lens"),
        ("parotidgland parotid", "45289007", "Parotid gland"),
        ("submandibulargland submandibular", "54019009", "Submandibular gland"),
        ("tongue", "21974007", "Tongue"),
        ("larynx", "4596009", "Larynx"),
        ("pharynx", "54066008", "Pharynx"),
        ("nasopharynx", "360955006", "Nasopharynx"),
        ("oropharynx", "31389004", "Oropharynx"),
        ("hypopharynx", "81502006", "Hypopharynx"),
        ("mandible", "91609006", "Mandible"),
        ("maxilla", "70925003", "Maxilla"),
        ("skull", "89546000", "Skull"),
        ("tooth teeth", "38199008", "Tooth"),
        ("face", "89545001", "Face"),
        ("vertebra vertebrae", "51282000", "Vertebra"),
        ("vertebraec1 vertebrac1", "14806007", "C1 vertebra"),
        ("vertebraec2 vertebrac2", "39976000", "C2 vertebra"),
        ("vertebraec3 vertebrac3", "113205007", "C3 vertebra"),
        ("vertebraec4 vertebrac4", "5329002", "C4 vertebra"),
        ("vertebraec5 vertebrac5", "36978003", "C5 vertebra"),
        ("vertebraec6 vertebrac6", "36054005", "C6 vertebra"),
        ("vertebraec7 vertebrac7", "87391001", "C7 vertebra"),
        ("vertebraet1 vertebrat1", "64864005", "T1 vertebra"),
        ("vertebraet2 vertebrat2", "53733008", "T2 vertebra"),
        ("vertebraet3 vertebrat3", "1626008", "T3 vertebra"),
        ("vertebraet4 vertebrat4", "73071006", "T4 vertebra"),
        ("vertebraet5 vertebrat5", "56401006", "T5 vertebra"),
        ("vertebraet6 vertebrat6", "45296009", "T6 vertebra"),
        ("vertebraet7 vertebrat7", "62487009", "T7 vertebra"),
        ("vertebraet8 vertebrat8", "11068009", "T8 vertebra"),
        ("vertebraet9 vertebrat9", "82687006", "T9 vertebra"),
        ("vertebraet10 vertebrat10", "7610001", "T10 vertebra"),
        ("vertebraet11 vertebrat11", "12989004", "T11 vertebra"),
        ("vertebraet12 vertebrat12", "23215003", "T12 vertebra"),
        ("vertebrael1 vertebral1", "66794005", "L1 vertebra"),
        ("vertebrael2 vertebral2", "14293000", "L2 vertebra"),
        ("vertebrael3 vertebral3", "36470004", "L3 vertebra"),
        ("vertebrael4 vertebral4", "11994002", "L4 vertebra"),
        ("vertebrael5 vertebral5", "49668003", "L5 vertebra"),
        ("sacrum", "54735007", "Sacrum"),
        ("rib ribs", "113197003", "Rib"),
        ("sternum", "56873002", "Sternum"),
        ("costalcartilage costalcartilages", "50016007", "Costal Cartilage"),
        ("clavicle clavicula", "51299004", "Clavicle"),
        ("scapula", "79601000", "Scapula"),
        ("humerus", "85050009", "Humerus"),
        ("femur", "71341001", "Femur"),
        ("patella", "64234005", "Patella"),
        ("fibula", "87342007", "Fibula"),
        ("ilium", "22356005", "Ilium"),
        ("lymphnode lymphnodes", "59441001", "Lymph Node"),
        ("erectorspinae", "44947003", "Erector spinae muscle"),
    ),
    ("85756007", "Tissue"): (
        ("skin", "39937001", "Skin"),
        ("bone bones", "272673000", "Bone"),
        ("muscle muscles skeletalmuscle", "127954009", "Skeletal muscle"),
        ("fat adiposetissue", "55603005", "Fat"),
        ("subcutaneousfat subcutaneoustissue", "71966008", "Subcutaneous tissue"),
        ("softtissue", "87784001", "Soft tissue"),
        ("whitematter", "389080008", "White Matter"),
        ("graymatter greymatter", "389081007", "Gray Matter"),
        ("bloodvessel bloodvessels vessel vessels", "59820001", "Blood Vessel"),
        ("meniscus", "74135004", "Meniscus"),
    ),
    ("91720002", "Body Substance"): (
        ("cerebrospinalfluid csf", "65216001", "Cerebrospinal Fluid"),
        ("pleuraleffusion", "60046008", "Pleural effusion"),
        ("pericardialeffusion", "373945007", "Pericardial effusion"),
    ),
    ("49755003", "Morphologically Abnormal Structure"): (
        ("lesion lesions", "52988006", "Lesion"),
        ("tumor tumour tumors tumours neoplasm wholetumor wholetumour cancer", "108369006", "Neoplasm"),
        ("metastasis metastases", "14799000", "Neoplasm, Secondary"),
        ("mass", "4147007", "Mass"),
        ("nodule nodules", "27925004", "Nodule"),
        ("cyst cysts", "367643001", "Cyst"),
        ("edema oedema peritumoraledema peritumouraloedema", "79654002", "Edema"),
        ("enhancingtumor enhancingtumour", "C113842", "Enhancing Lesion"),
        ("nonenhancingtumor nonenhancingtumour", "C81175", "Non-Enhancing Lesion"),
        ("necrosis", "6574001", "Necrosis"),
        ("hemorrhage haemorrhage", "50960005", "Hemorrhage"),
        ("abscess", "44132006", "Abscess"),
        ("embolus", "55584005", "Embolus"),
        ("thrombus", "396339007", "Thrombus"),
        ("bloodclot clot", "75753009", "Blood clot"),
        ("aneurysm", "85659009", "Aneurysm"),
    ),
}  # fmt: skip


def codes_of(labels: Sequence[str], given: Any = None) -> dict[str, LabelCodes]:
    """The codes of labels: those that dataset.json gives, else those of the table; without either, none.

    Args:
        labels: names of structures.
        given: `codes` of dataset.json: an object of labels and their codes (`read_codes`).

    Raises:
        DatasetError: it is not that, or names something that is not a label.
    """
    if given is not None and not isinstance(given, Mapping):
        raise DatasetError("dataset.json: codes must be an object of labels and their codes; correct it")
    own = {alike_key(label): label for label in labels}
    read: dict[str, LabelCodes] = {}
    for name, content in (given or {}).items():
        label = name if name in labels else own.get(alike_key(name))
        if label is None or label in read:
            raise DatasetError(f"dataset.json: codes names {name[:60]!r}, which labels does not have, or has it twice")
        try:
            read[label] = read_codes(content)
        except ValueError as error:
            raise DatasetError(f"dataset.json: codes of {name[:60]!r}: {error}") from error
    usual = {label: found for label in labels if (found := usual_codes(label)) is not None}
    return {label: codes for label in labels if (codes := read.get(label, usual.get(label))) is not None}


def usual_codes(name: str) -> LabelCodes | None:
    """The codes of a structure by its name, or None if the table does not have it."""
    by_name = _by_name()
    if (whole := by_name.get(alike_key(name))) is not None:
        return whole
    if (told := _SIDE.match(name.strip())) is None:
        return None
    side, rest = (told[1], told[2]) if told[1] else (told[4], told[3])
    found = by_name.get(alike_key(rest)) if alike_key(rest) in _PAIRED else None
    return None if found is None else LabelCodes(found.category, found.type, (SIDES[side.lower()],))


@cache
def _by_name() -> dict[str, LabelCodes]:
    return {
        name: LabelCodes(Code("SCT", *category), Code("NCIt" if value.startswith("C") else "SCT", value, meaning))
        for category, rows in STRUCTURES.items()
        for names, value, meaning in rows
        for name in names.split()
    }
