"""The columns of MILK10k's files, in official order, and which of them give the label away.

Source: MILK10k_{Training,Test}_Metadata.csv (17 columns), MILK10k_Training_Supplement.csv (4) and
metadata.csv of the archive's bundle (17). Units: years for age_approx; MONET_* are scores 0..1 of a
foundation model's concepts, one set an image; skin_tone_class 0 (darkest) .. 5.
Trap: the bundle's diagnosis stands at the deepest of diagnosis_1..5 that is filled.
"""

from isic.index.diagnosis_table import MILK10K_FULL

CLASSES = tuple("AKIEC BCC BEN_OTH BKL DF INF MAL_OTH MEL NV SCCKA VASC".split())
# image_type -> view; the ISIC Archive renamed `clinical` in 2025.
VIEWS = {
    "dermoscopic": "dermoscopic",
    "clinical: close-up": "clinical",
    "clinical: overview": "clinical",
    "clinical": "clinical",
}
# diagnosis_full -> class: a function, in the 5,240 lesions as in the samples at hand.
DIAGNOSES = {name: c for c, names in MILK10K_FULL.items() for name in names.split("; ")}

MONET = (
    "MONET_ulceration_crust",
    "MONET_hair",
    "MONET_vasculature_vessels",
    "MONET_erythema",
    "MONET_pigmented",
    "MONET_gel_water_drop_fluid_dermoscopy_liquid",
    "MONET_skin_markings_pen_ink_purple_pen",
)
LEVELS = ("diagnosis_1", "diagnosis_2", "diagnosis_3", "diagnosis_4", "diagnosis_5")
SITE_LEVELS = tuple(f"anatom_site_{level}" for level in range(1, 6))
_OF_SUPPLEMENT = ("diagnosis_confirm_type", "invasion_thickness_interval")
LEAKS = (*_OF_SUPPLEMENT, *LEVELS, "melanocytic", "concomitant_biopsy")

METADATA = {
    "lesion_id": "text",
    "image_type": "text",
    "isic_id": "text",
    "attribution": "text",
    "copyright_license": "text",
    "image_manipulation": "text",
    "age_approx": "number",
    "sex": "text",
    "skin_tone_class": "number",
    "site": "text",
    **dict.fromkeys(MONET, "number"),
}
TRUTH = {"lesion_id": "text", **dict.fromkeys(CLASSES, "label")}
SUPPLEMENT = {"isic_id": "text", "diagnosis_full": "text", **dict.fromkeys(_OF_SUPPLEMENT, "text")}
BUNDLE = {
    "isic_id": "text",
    "attribution": "text",
    "copyright_license": "text",
    "age_approx": "number",
    "anatom_site_general": "text",
    "anatom_site_special": "text",
    "concomitant_biopsy": "text",
    **dict.fromkeys(LEVELS, "text"),
    "diagnosis_confirm_type": "text",
    "image_manipulation": "text",
    "image_type": "text",
    "lesion_id": "text",
    "melanocytic": "text",
    "sex": "text",
    **dict.fromkeys(SITE_LEVELS, "text"),
}
# The archive adds, drops and renames columns; anatom_site_general became five levels in 2026.
BUNDLE_OPTIONAL = tuple(c for c in BUNDLE if c not in ("isic_id", "image_type", "lesion_id"))
