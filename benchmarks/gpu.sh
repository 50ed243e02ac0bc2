#!/usr/bin/env bash
# Tests and measurements that need a GPU, the most important first, in at most 8 minutes: benchmarks/gpu.sh [full|tiny]
# "tiny" runs on a CPU in seconds, to test this script. Only the checkout is needed, and no network access. $PYTHON is
# the interpreter. Every part has a time limit, and the next parts run even if it fails. Its output is printed and saved
# as gpu-PART.txt in $OUT (default: results).
set -uo pipefail
cd "$(dirname "$0")/.."
size=${1:-full}
out=${OUT:-results}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
limit=480
failed=0
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

# part NAME SECONDS COMMAND...
part() {
  local name=$1 most=$2 left=$((limit - SECONDS)) code
  shift 2
  if ((left < 5)); then
    echo "== $name: skipped, since no time is left"
    failed=1
    return
  fi
  echo "== $name, at second $SECONDS"
  timeout -k 5 "$((most < left ? most : left))" "$@" 2>&1 | tee "$out/gpu-$name.txt"
  code=${PIPESTATUS[0]}
  if ((code)); then
    echo "== $name: ended with $code" | tee -a "$out/gpu-$name.txt"
    failed=1
  fi
}

if [ "$size" = full ]; then
  part tests 70 "$python" -m pytest -q -x tests/training/test_cuda.py tests/evaluation/test_verdicts.py \
    -k 'cuda and (bs or cpu or bit or pgd or square)'
fi
part small 110 "$python" -m benchmarks.gpu small --size "$size"
part autoattack 150 "$python" -m benchmarks.gpu autoattack --size "$size"
part large 110 "$python" -m benchmarks.gpu large --size "$size"
part pgd-100 40 "$python" -m benchmarks.gpu pgd-100 --size "$size"
echo "== ended at second $SECONDS"
exit "$failed"
