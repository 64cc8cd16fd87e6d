"""What each archive calls a lesion, the shared class of each name, malignant or not, and why.

Source: named with every block below; raw names stand as the organisers' files spell them.
Unit: one line a raw name: `raw name = SHARED malignant`, where malignant is 1, 0 or ? (not said).
Decisions: Bowen's disease (squamous cell carcinoma in situ) is SCC and malignant: the ISIC Archive
files it there, and ISIC 2019 made SCC of 197 and AK of 130 of HAM10000's 327 `akiec`. Actinic
keratosis is not malignant: the Archive calls it indeterminate, which is target 0 in ISIC 2024.
Trap: MILK10k's AKIEC is both; only its supplement (`diagnosis_full`) tells them apart.
"""

SHARED = (
    *("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"),
    *("INF", "BEN_OTH", "MAL_OTH", "UNK"),
)

# archive -> (source, lines)
NAMES: dict[str, tuple[str, str]] = {
    "isic2019": (
        "the challenge's nine classes; malignancy as in the ISIC Archive",
        """
        MEL = MEL 1
        NV = NV 0
        BCC = BCC 1
        AK = AK 0
        BKL = BKL 0
        DF = DF 0
        VASC = VASC 0
        SCC = SCC 1
        UNK = UNK ?
        """,
    ),
    "isic2020": (
        "9-class target of the SIIM-ISIC 2020 winners (arXiv 2010.05351); malignancy of train.csv",
        """
        melanoma = MEL 1
        nevus = NV 0
        seborrheic keratosis = BKL 0
        lichenoid keratosis = BKL 0
        solar lentigo = BKL 0
        lentigo NOS = BKL 0
        cafe-au-lait macule = UNK 0
        atypical melanocytic proliferation = UNK 0
        unknown = UNK 0
        """,
    ),
    "milk10k": (
        "classes of the MILK10k benchmark; malignancy as in the ISIC Archive",
        """
        AKIEC = AK ?
        BCC = BCC 1
        BEN_OTH = BEN_OTH 0
        BKL = BKL 0
        DF = DF 0
        INF = INF 0
        MAL_OTH = MAL_OTH 1
        MEL = MEL 1
        NV = NV 0
        SCCKA = SCC 1
        VASC = VASC 0
        """,
    ),
    "ham10000": (
        "HAM10000's dx (doi 10.1038/sdata.2018.161); akiec holds Bowen's disease too",
        """
        akiec = AK ?
        bcc = BCC 1
        bkl = BKL 0
        df = DF 0
        mel = MEL 1
        nv = NV 0
        vasc = VASC 0
        """,
    ),
    "pad_ufes": (
        "PAD-UFES-20's diagnostic (doi 10.1016/j.dib.2020.106221); SCC holds Bowen's disease too",
        """
        ACK = AK 0
        BCC = BCC 1
        MEL = MEL 1
        NEV = NV 0
        SCC = SCC 1
        SEK = BKL 0
        """,
    ),
    "archive_words": (
        "the ISIC Archive's single column `diagnosis` of before 2025 (LegacyDxEnum of "
        "github.com/ImageMarkup/isic-metadata), filed as its diagnosis_1..5",
        """
        melanoma = MEL 1
        melanoma metastasis = MEL 1
        nevus = NV 0
        basal cell carcinoma = BCC 1
        squamous cell carcinoma = SCC 1
        actinic keratosis = AK 0
        seborrheic keratosis = BKL 0
        pigmented benign keratosis = BKL 0
        lichenoid keratosis = BKL 0
        solar lentigo = BKL 0
        lentigo NOS = BKL 0
        lentigo simplex = NV 0
        clear cell acanthoma = BKL 0
        dermatofibroma = DF 0
        vascular lesion = VASC 0
        angioma = VASC 0
        verruca = INF 0
        scar = BEN_OTH 0
        acrochordon = BEN_OTH 0
        neurofibroma = BEN_OTH 0
        angiofibroma or fibrous papule = BEN_OTH 0
        atypical melanocytic proliferation = UNK 0
        AIMP = UNK 0
        atypical spitz tumor = UNK 0
        ephelis = BEN_OTH 0
        epidermal nevus = BKL 0
        merkel cell carcinoma = MAL_OTH 1
        mucosal melanosis = BEN_OTH 0
        nevus spilus = NV 0
        sebaceous adenoma = BEN_OTH 0
        cafe-au-lait macule = UNK 0
        adnexal tumor = UNK ?
        other = UNK ?
        unknown = UNK ?
        """,
    ),
    "archive_signs": (
        "the ISIC Archive's column `benign_malignant` of before 2025 (BenignMalignantEnum of "
        "github.com/ImageMarkup/isic-metadata); indeterminate is 0 as in ISIC 2024's target, what "
        "leans to malignant is not said",
        """
        indeterminate/benign = UNK 0
        indeterminate/malignant = UNK ?
        """,
    ),
}

# MILK10k's class -> values of diagnosis_full, as the real ground truth pairs them (a function: no
# value occurs under two classes).
MILK10K_FULL = {
    "AKIEC": "Solar or actinic keratosis; Squamous cell carcinoma in situ, Bowens disease",
    "BCC": "Basal cell carcinoma",
    "BEN_OTH": "Benign - Other; Benign soft tissue proliferations - Fibro-histiocytic; "
    "Benign soft tissue proliferations - Vascular; Collision - Only benign proliferations; "
    "Exogenous; Infundibular or epidermal cyst; Juvenile xanthogranuloma; Mastocytosis; "
    "Mucosal melanotic macule; Sebaceous hyperplasia; Supernumerary nipple; Trichoblastoma",
    "BKL": "Clear cell acanthoma; Ink-spot lentigo; Lichen planus like keratosis; "
    "Seborrheic keratosis; Solar lentigo",
    "DF": "Dermatofibroma",
    "INF": "Inflammatory or infectious diseases; Molluscum; Porokeratosis",
    "MAL_OTH": "Collision - At least one malignant proliferation",
    "MEL": "Melanoma Invasive; Melanoma in situ; Melanoma metastasis",
    "NV": "Blue nevus; Nevus; Nevus, Acral; Nevus, BAP-1 deficient; Nevus, Balloon cell; "
    "Nevus, Combined; Nevus, Congenital; Nevus, NOS, Compound; Nevus, NOS, Dermal; "
    "Nevus, NOS, Junctional; Nevus, Recurrent or persistent; Nevus, Reed; Nevus, Spilus; "
    "Nevus, Spitz",
    "SCCKA": "Keratoacanthoma; Squamous cell carcinoma, Invasive",
    "VASC": "Angiokeratoma; Hemangioma; Hemangioma, Hobnail; Pyogenic granuloma",
}
# The two halves of AKIEC.
MILK10K_SPLIT = {
    "Solar or actinic keratosis": ("AK", 0),
    "Squamous cell carcinoma in situ, Bowens disease": ("SCC", 1),
}

TREE_SOURCE = (
    "levels of the ISIC Archive's diagnosis tree (github.com/ImageMarkup/isic, DiagnosisEnum; "
    "iddx_full of ISIC 2024); leaves as MILK10k and the SIIM-ISIC 2020 winners class them"
)
# First level -> malignant. ISIC 2024's 393 positives are its `Malignant` rows; its 114
# indeterminate ones have target 0.
TREE_MALIGNANT = {"malignant": 1, "benign": 0, "indeterminate": 0}
# The longest path that a diagnosis begins with decides; a second level not listed is unknown.
TREE = """
Benign = UNK
Benign::Benign - Other = BEN_OTH
Benign::Benign adnexal epithelial proliferations - Apocrine or Eccrine = BEN_OTH
Benign::Benign adnexal epithelial proliferations - Follicular = BEN_OTH
Benign::Benign adnexal epithelial proliferations - Sebaceous = BEN_OTH
Benign::Benign epidermal proliferations = BKL
Benign::Benign epidermal proliferations::Porokeratosis = INF
Benign::Benign melanocytic proliferations = NV
Benign::Benign soft tissue proliferations - Adipocytic = BEN_OTH
Benign::Benign soft tissue proliferations - Cartilagenous and ossifying = BEN_OTH
Benign::Benign soft tissue proliferations - Fibro-histiocytic = BEN_OTH
Benign::Benign soft tissue proliferations - Fibro-histiocytic::Dermatofibroma = DF
Benign::Benign soft tissue proliferations - Muscle tissue or myofibroblastic = BEN_OTH
Benign::Benign soft tissue proliferations - Myoepithelial = BEN_OTH
Benign::Benign soft tissue proliferations - Neural = BEN_OTH
Benign::Benign soft tissue proliferations - Vascular = VASC
Benign::Collision - Only benign proliferations = BEN_OTH
Benign::Cysts = BEN_OTH
Benign::Exogenous = BEN_OTH
Benign::Flat melanotic pigmentations - not melanocytic nevus = BEN_OTH
Benign::Flat melanotic pigmentations - not melanocytic nevus::Cafe au lait macule or patch = UNK
Benign::Flat melanotic pigmentations - not melanocytic nevus::Ink-spot lentigo = BKL
Benign::Flat melanotic pigmentations - not melanocytic nevus::Lentigo NOS = BKL
Benign::Hemorrhagic lesions = VASC
Benign::Inflammatory or infectious diseases = INF
Benign::Langerhans cell proliferations = BEN_OTH
Benign::Mast cell proliferations = BEN_OTH
Indeterminate = UNK
Indeterminate::Indeterminate epidermal proliferations = AK
Indeterminate::Indeterminate melanocytic proliferations = UNK
Malignant = UNK
Malignant::Collision - At least one malignant proliferation = MAL_OTH
Malignant::Lymphocytic proliferations - B-Cell = MAL_OTH
Malignant::Lymphocytic proliferations - T-Cell/NK = MAL_OTH
Malignant::Malignant adnexal epithelial proliferations - Apocrine or Eccrine = MAL_OTH
Malignant::Malignant adnexal epithelial proliferations - Follicular = MAL_OTH
Malignant::Malignant adnexal epithelial proliferations - Follicular::Basal cell carcinoma = BCC
Malignant::Malignant adnexal epithelial proliferations - Sebaceous = MAL_OTH
Malignant::Malignant epidermal proliferations = SCC
Malignant::Malignant melanocytic proliferations (Melanoma) = MEL
Malignant::Malignant soft tissue proliferations - Adipocytic = MAL_OTH
Malignant::Malignant soft tissue proliferations - Cartilagenous and ossifying = MAL_OTH
Malignant::Malignant soft tissue proliferations - Fibro-histiocytic = MAL_OTH
Malignant::Malignant soft tissue proliferations - Muscle tissue or myofibroblastic = MAL_OTH
Malignant::Malignant soft tissue proliferations - Myoepithelial = MAL_OTH
Malignant::Malignant soft tissue proliferations - Neural = MAL_OTH
Malignant::Malignant soft tissue proliferations - Unknown or other histiogenesis = MAL_OTH
Malignant::Malignant soft tissue proliferations - Vascular = MAL_OTH
Malignant::Merkel cell proliferation = MAL_OTH
Malignant::Skin metastasis of internal solid cancer - non-hematological = MAL_OTH
"""
