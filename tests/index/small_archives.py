"""Three archives of a few rows each, in their official layouts, as text that a test can change.

Images are empty files: an index is made of names, and no reader may open one.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

ISIC2019 = tuple("MEL NV BCC AK BKL DF VASC SCC UNK".split())
MILK10K = tuple("AKIEC BCC BEN_OTH BKL DF INF MAL_OTH MEL NV SCCKA VASC".split())
MONET = (
    "ulceration_crust hair vasculature_vessels erythema pigmented "
    "gel_water_drop_fluid_dermoscopy_liquid skin_markings_pen_ink_purple_pen"
).split()
N = 12


def read(path: Path) -> pd.DataFrame:
    """A CSV as text, cell by cell."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def edit(path: Path, column: str, value: str, row: int | slice = 0) -> str:
    """Change cells of a CSV; the first id of those rows."""
    frame = read(path)
    frame.iloc[row, frame.columns.get_loc(column)] = value
    frame.to_csv(path, index=False)
    return str(frame.iloc[row if isinstance(row, int) else 0, 0])


def one_hot(
    codes: list[int], classes: tuple[str, ...], one: str, zero: str
) -> dict[str, list[str]]:
    """Class columns with `one` in the class of each row."""
    return {c: [one if code == i else zero for code in codes] for i, c in enumerate(classes)}


def touch(folder: Path, names: list[str]) -> None:
    """Make empty files, and the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def write_isic2019(root: Path) -> Path:
    """12 train rows of 8 classes in 6 lesions, 4 labelled test rows of which one is UNK."""
    root.mkdir(parents=True, exist_ok=True)
    ids = [f"ISIC_{i:07d}" + ("_downsampled" if i % 5 == 0 else "") for i in range(N)]
    codes = [i // 2 % 8 for i in range(N)]
    truth = {"image": ids, **one_hot(codes, ISIC2019, "1.0", "0.0")}
    pd.DataFrame(truth).to_csv(root / "ISIC_2019_Training_GroundTruth.csv", index=False)
    metadata = {
        "image": ids[::-1],  # never in the order of the ground truth
        "age_approx": [str(5 * i) for i in range(N)][::-1],
        "anatom_site_general": ["lateral torso", "", "head/neck", "oral/genital"] * 3,
        "lesion_id": [["BCN_1", "HAM_2", "MSK4_3", ""][i // 2 % 4] for i in range(N)][::-1],
        "sex": ["male", "female", ""] * 4,
    }
    pd.DataFrame(metadata).to_csv(root / "ISIC_2019_Training_Metadata.csv", index=False)
    tests = [f"ISIC_{i:07d}" for i in range(90, 94)]
    columns = {"image": tests, "age_approx": ["60"] * 4, "anatom_site_general": ["head/neck"] * 4}
    metadata = {**columns, "sex": ["male"] * 4}
    pd.DataFrame(metadata).to_csv(root / "ISIC_2019_Test_Metadata.csv", index=False)
    truth = {"image": tests[::-1], **one_hot([8, 2, 1, 0], ISIC2019, "1", "0")}
    pd.DataFrame(truth).to_csv(root / "ISIC_2019_Test_GroundTruth.csv", index=False)
    touch(root / "ISIC_2019_Training_Input", [f"{i}.jpg" for i in ids])
    touch(root / "ISIC_2019_Test_Input", [f"{i}.jpg" for i in tests])
    return root


def write_isic2020(root: Path) -> Path:
    """12 train rows of 4 patients, one pair twice in the archive; 4 test rows; Kaggle's layout."""
    root.mkdir(parents=True, exist_ok=True)
    ids = [f"ISIC_{i:07d}" for i in range(N)]
    kinds = ["unknown", "nevus", "melanoma", "lentigo NOS", "seborrheic keratosis"]
    kinds += ["cafe-au-lait macule"]
    diagnosis = [kinds[i % 6] for i in range(N)]
    table = {
        "image_name": ids,
        "patient_id": [f"IP_{(0, 0, 1, 1, 2, 3)[i % 6]:07d}" for i in range(N)],
        "sex": ["male", "female", "", "male"] * 3,
        "age_approx": [f"{5.0 * i}" for i in range(N)],
        "anatom_site_general_challenge": ["torso", "", "head/neck", "palms/soles"] * 3,
        "diagnosis": diagnosis,
        "benign_malignant": ["malignant" if d == "melanoma" else "benign" for d in diagnosis],
        "target": [str(int(d == "melanoma")) for d in diagnosis],
    }
    pd.DataFrame(table).to_csv(root / "train.csv", index=False)
    pairs = {"image_name_1": [ids[0]], "image_name_2": [ids[6]]}
    pd.DataFrame(pairs).to_csv(root / "ISIC_2020_Training_Duplicates.csv", index=False)
    tests = [f"ISIC_{i:07d}" for i in range(90, 94)]
    known = list(table)[1:5]
    test = {"image_name": tests, **{c: table[c][:4] for c in known}}
    pd.DataFrame(test).to_csv(root / "test.csv", index=False)
    touch(root / "jpeg" / "train", [f"{i}.jpg" for i in ids])
    touch(root / "jpeg" / "test", [f"{i}.jpg" for i in tests])
    return root


def milk10k_rows(lesions: list[str], first: int) -> pd.DataFrame:
    """Clinical, then dermoscopic; the ids of every other lesion run the other way."""
    rows = []
    for n, lesion in enumerate(lesions):
        numbers = [first + 2 * n, first + 2 * n + 1]
        for kind, number in zip(
            ("clinical: close-up", "dermoscopic"), numbers[:: 1 if n % 2 else -1], strict=True
        ):
            row = {"lesion_id": lesion, "image_type": kind, "isic_id": f"ISIC_{number:07d}"}
            row |= {"attribution": "MILK study team", "copyright_license": "CC-BY-NC"}
            row |= {"image_manipulation": "instrument only", "age_approx": str(5 * n)}
            row |= {"sex": "male", "skin_tone_class": str(n % 6)}
            row |= {"site": ["trunk", "hand", "", "head_neck_face"][n % 4]}
            rows.append(row | {f"MONET_{m}": f"0.{number}" for m in MONET})
    return pd.DataFrame(rows)


def write_milk10k(root: Path) -> Path:
    """12 train lesions of 11 classes and 4 test lesions, two images each."""
    root.mkdir(parents=True, exist_ok=True)
    lesions = [f"IL_{i:07d}" for i in range(N)]
    truth = {"lesion_id": lesions[::-1]}
    truth |= one_hot([i % 11 for i in range(N)][::-1], MILK10K, "1.0", "0.0")
    pd.DataFrame(truth).to_csv(root / "MILK10k_Training_GroundTruth.csv", index=False)
    rows = milk10k_rows(lesions, 100)
    rows.to_csv(root / "MILK10k_Training_Metadata.csv", index=False)
    supplement = {"isic_id": rows["isic_id"][::-1], "diagnosis_full": "Nevus, Reed"}
    supplement |= {"diagnosis_confirm_type": "histopathology", "invasion_thickness_interval": ""}
    frame = pd.DataFrame(supplement)
    frame.to_csv(root / "MILK10k_Training_Supplement.csv", index=False)
    tests = milk10k_rows([f"IL_{i:07d}" for i in range(90, 94)], 900)
    tests.to_csv(root / "MILK10k_Test_Metadata.csv", index=False)
    for split, table in (("Training", rows), ("Test", tests)):
        for lesion, images in table.groupby("lesion_id")["isic_id"]:
            names = [f"{image}.jpg" for image in images]
            touch(root / f"MILK10k_{split}_Input" / str(lesion), names)
    return root


def copy_test_part(whole: Path, part: Path) -> Path:
    """The test table and the test images alone, as an inference machine has them."""
    for path in sorted(whole.rglob("*")):
        name = path.relative_to(whole)
        if path.is_file() and "test" in str(name).lower() and "GroundTruth" not in path.name:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, part / name)
    return part


WRITERS: dict[str, Callable[[Path], Path]] = {
    "isic2019": write_isic2019,
    "isic2020": write_isic2020,
    "milk10k": write_milk10k,
}
# The table that a reader asks for first, its id column, and the zip it comes beside.
TRAIN_TABLE = {
    "isic2019": ("ISIC_2019_Training_Metadata.csv", "image"),
    "isic2020": ("train.csv", "image_name"),
    "milk10k": ("MILK10k_Training_Metadata.csv", "isic_id"),
}
LABELS = {
    "isic2019": ("ISIC_2019_Training_GroundTruth.csv", "NV"),
    "isic2020": ("train.csv", "target"),
    "milk10k": ("MILK10k_Training_GroundTruth.csv", "NV"),
}
