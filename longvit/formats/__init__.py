"""Files that users keep in addition to the store, one module each: columns or model, reader, writer.

| File | Module | Written by |
|---|---|---|
| predictions.csv | `predictions_csv` | finetune, predict |
| membership.csv | `membership_csv` | finetune |
| audit.json | `audit_json` | audit, finetune |
| metrics.json | `metrics_json` | evaluate |
| explanation.json, scores.csv | `explanation_json` | explain |
| run.json | `run_json` | every verb with a run folder |

`bounded`, `csv_rows` and `table_problems` are shared by these modules.
"""
