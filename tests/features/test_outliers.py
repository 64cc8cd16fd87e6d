"""The local outlier factor against scikit-learn's, patient by patient."""

import numpy as np
import pytest
from sklearn.neighbors import LocalOutlierFactor

from isic.errors import ConfigError
from isic.features.outliers import COLUMNS, LARGEST, Outliers, local_outlier_factor


def test_it_is_scikit_learns_within_each_patient(train):
    got = Outliers(neighbours=8).transform(train, {})["lof_patient"]
    compared = 0
    for _, rows in train.groupby("patient_id"):
        x = rows[list(COLUMNS)]
        z = ((x - x.mean()) / (x.std() + 1e-5)).fillna(0.0).to_numpy()
        reference = LocalOutlierFactor(n_neighbors=min(8, (len(x) - 1) // 2)).fit(z)
        factor = -reference.negative_outlier_factor_
        np.testing.assert_allclose(got.loc[rows.index], factor, rtol=1e-4)
        compared += len(x) > 10
    assert compared > 5


def test_an_odd_lesion_stands_out(train):
    rows = train.copy()
    rows.loc[7, list(COLUMNS)] = rows[list(COLUMNS)].mean() + 8 * rows[list(COLUMNS)].std()
    mine = rows["patient_id"] == rows["patient_id"][7]
    factor = Outliers().transform(rows, {})["lof_patient"][mine]
    assert factor.idxmax() == 7
    assert factor.max() > 1.5


def test_few_lesions_and_equal_lesions(train):
    two = train.iloc[:2].assign(patient_id="IP_0000001")
    assert Outliers().transform(two, {})["lof_patient"].isna().all()
    points = np.zeros((50, 3))
    points[0] = 1.0
    factor = local_outlier_factor(points, 5)
    assert factor[0] == LARGEST
    np.testing.assert_allclose(factor[1:], 1.0)


def test_no_neighbours_is_refused():
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        Outliers(neighbours=0)
