#!/bin/sh
# torch 2.14.1: `torch.load` refuses files that `torch.save(pickle_protocol=4)` of the same version writes.
#
# `torch.save` has an option for the pickle protocol; 4 has been the default of Python's pickle since 3.8. The safe
# reader, the default of `torch.load` since 2.6, supports only the opcodes of protocols 2 and 3. So a plain dict with a
# tensor and a number, saved with protocol 4 or 5, fails with "Unsupported operand 149" (the opcode FRAME, not a class),
# and the message begins with the advice to pass weights_only=False. `add_safe_globals` does not help, since the file has
# no unknown class. A reader of checkpoints should check the protocol first and report it.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1'
cat > "$folder/look.py" <<'PYTHON'
import io
import pickle

import torch

print("torch", torch.__version__)
assert torch.__version__.split("+")[0] == "2.14.1"
for protocol, known in ((2, True), (3, True), (4, False), (5, False)):
    file = io.BytesIO()
    torch.save({"w": torch.ones(2), "epoch": 3}, file, pickle_protocol=protocol)
    file.seek(0)
    try:
        found = torch.load(file)["epoch"]
    except pickle.UnpicklingError as error:
        found = next(line.strip() for line in str(error).splitlines() if "Unsupported operand" in line)
    print("protocol", protocol, "->", found)
    assert (found == 3) == known, "the safe reader knows other protocols now"
    assert known or found == "Unsupported operand 149"
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
