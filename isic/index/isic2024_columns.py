"""The columns of ISIC 2024's metadata files, in official order.

Source: train-metadata.csv (55 columns) and test-metadata.csv (44) of the Kaggle challenge.
Units: mm and mm2 where the name says so, CIE Lab for A, B, L (`ext`: the skin around the lesion),
years for age_approx.
Trap: the test file lacks the 11 columns of `TRAIN_ONLY`; each gives the label away.
"""

_TEST = """
isic_id patient_id age_approx sex anatom_site_general clin_size_long_diam_mm image_type
tbp_tile_type tbp_lv_A tbp_lv_Aext tbp_lv_B tbp_lv_Bext tbp_lv_C tbp_lv_Cext tbp_lv_H tbp_lv_Hext
tbp_lv_L tbp_lv_Lext tbp_lv_areaMM2 tbp_lv_area_perim_ratio tbp_lv_color_std_mean tbp_lv_deltaA
tbp_lv_deltaB tbp_lv_deltaL tbp_lv_deltaLB tbp_lv_deltaLBnorm tbp_lv_eccentricity tbp_lv_location
tbp_lv_location_simple tbp_lv_minorAxisMM tbp_lv_nevi_confidence tbp_lv_norm_border
tbp_lv_norm_color tbp_lv_perimeterMM tbp_lv_radial_color_std_max tbp_lv_stdL tbp_lv_stdLExt
tbp_lv_symm_2axis tbp_lv_symm_2axis_angle tbp_lv_x tbp_lv_y tbp_lv_z attribution copyright_license
"""
_TRAIN_ONLY = """
target lesion_id iddx_full iddx_1 iddx_2 iddx_3 iddx_4 iddx_5 mel_mitotic_index mel_thick_mm
tbp_lv_dnn_lesion_confidence
"""
_TEXT = """
isic_id patient_id sex anatom_site_general image_type tbp_tile_type tbp_lv_location
tbp_lv_location_simple attribution copyright_license lesion_id iddx_full iddx_1 iddx_2 iddx_3
iddx_4 iddx_5 mel_mitotic_index
"""

TEST_COLUMNS = tuple(_TEST.split())
TRAIN_ONLY = tuple(_TRAIN_ONLY.split())
TRAIN_COLUMNS = ("isic_id", "target", *TEST_COLUMNS[1:], *TRAIN_ONLY[1:])


def column_kinds() -> dict[str, str]:
    """Return each train column's kind as `read_csv` takes it: text, label or number."""
    text = frozenset(_TEXT.split())
    kinds = {c: "text" if c in text else "number" for c in TRAIN_COLUMNS}
    return {**kinds, "target": "label"}
