"""Generated samples of ISIC 2024 and MILK10k, and the families as their yamls describe them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from isic.acquire.synthetic import write_isic2024
from isic.cli import CONF
from isic.config.targets import locate
from isic.features.family import Family
from isic.index.isic2024 import build_index
from isic.index.schema import sample_rows

# the others (`usual_<data>`) are lists of these
YAMLS = [p for p in sorted((CONF / "features").glob("*.yaml")) if not p.stem.startswith("usual_")]
SMALL: dict[str, dict[str, Any]] = {"group_scores": {"by": ["attribution", "age"], "fewest": 2}}
ISIC2024 = [p.stem for p in YAMLS if p.stem != "milk10k"]


def family(name: str, **changed: Any) -> Family:
    """A family with the options of its yaml, fit for few rows, some of them changed."""
    node = yaml.safe_load((CONF / "features" / f"{name}.yaml").read_text())[name]
    made: Family = locate(node.pop("_target_"))(**{**node, **SMALL.get(name, {}), **changed})
    return made


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """400 train and 40 test rows of ISIC 2024 without images, with scores of one model."""
    root = tmp_path_factory.mktemp("features") / "isic2024"
    write_isic2024(root, n_images=400, n_test=40, n_patients=14, positives=30, images=False)
    return scored(sample_rows(build_index(root)))


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    score = np.random.default_rng(1).random(len(rows)) ** 8
    return rows.assign(score_net=score)


@pytest.fixture(scope="session")
def train(archive: pd.DataFrame) -> pd.DataFrame:
    return archive[archive["split"] == "train"].reset_index(drop=True)


@pytest.fixture(scope="session")
def test_rows(archive: pd.DataFrame) -> pd.DataFrame:
    return archive[archive["split"] == "test"].reset_index(drop=True)


@pytest.fixture(scope="session")
def real_rows(real_root: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The five real train rows with all 55 columns and the three real test rows."""
    import shutil

    root, real = tmp_path_factory.mktemp("real"), real_root / "isic2024"
    shutil.copy(real / "train-metadata_5rows_55cols.csv", root / "train-metadata.csv")
    shutil.copy(real / "test-metadata.csv", root / "test-metadata.csv")
    return scored(sample_rows(build_index(root)))
