"""Read records with pandas: python examples/read_records.py results.jsonl."""

import sys

import pandas

records = pandas.read_json(sys.argv[1], lines=True)
records = records[records["kind"] == "evaluation"]
records["passes"] = records["train_forward_passes"] + records["train_backward_passes"]
table = records.pivot_table(index="method", columns="attack", values="accuracy", aggfunc=["mean", "count"])
print(table.round(3).to_string())
print(records.groupby("method")["passes"].mean().to_string())
