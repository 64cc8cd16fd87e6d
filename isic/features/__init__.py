"""Index and out-of-fold predictions -> one table of features, a row a sample. No torch.

`table.py` says how the parts go together and `family.py` what a family is; `cache.py` keeps what
was made, `grouped.py` has statistics within groups, `selection.py` chooses among features, with the
tests of `relevance.py`. The families:

| family | learns | reads | gives |
|---|---|---|---|
| `LesionShape` | no | ISIC 2024's measured columns | these, and the 2024 winners' formulas |
| `PatientContext` | no | the same, of a patient's rows | z-score, ratio, rank within the patient |
| `Outliers` | no | the same, of a patient's rows | local outlier factor within the patient |
| `ImageScores` | no | `score_*` of `with_scores` | out-of-fold scores as they are |
| `GroupContext` | yes | `score_*`, or others | z-score in groups of hospital, place, age |
| `LesionClusters` | yes | the measured columns | z-score within a k-means cluster |
| `Metadata` | yes | any columns of the table | numbers as they are, texts one column a value |
"""
