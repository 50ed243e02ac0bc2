#!/usr/bin/env bash
# Effects of another network, of initial weights and of extra images, compared with 4 epochs of bs on 9,000 CIFAR-10
# images. Usage: CIFAR10=cifar-10-python.tar.gz bash benchmarks/more.sh [OUT]; run it again to resume.
set -eu -o pipefail
BSK=${BSK:-bsk} SEEDS=${SEEDS:-1 2 3} out=${1:-out/more}
data=$out/cifar10.safetensors rest=$out/rest.safetensors
mkdir -p "$out"

if [[ ! -e $rest ]]; then
    $BSK prepare-data cifar10 --from "$CIFAR10" --val 200 --train-limit 9000 --test-limit 2000 --out "$data" --quiet >&2
    MORE=$data $BSK prepare-data benchmarks.rest:rest --out "$rest" --quiet >&2
fi

train() { # NAME FLAGS...
    local name=$1
    shift
    [[ -e $out/$name.train.json ]] && return
    $BSK train --data "$data" --model resnet18-16 --eps 8/255 --epochs 4 --schedule cyclic --method bs --threads 1 \
        --out "$out/$name.safetensors" --quiet "$@" > "$out/$name.tmp"
    $BSK evaluate "$out/$name.safetensors" --data "$data" --attack natural,pgd-20 --threads 1 --quiet \
        --out "$out/$name.eval.jsonl" > /dev/null
    mv "$out/$name.tmp" "$out/$name.train.json" # now it is done
}

for seed in $SEEDS; do
    train "all-$seed" --seed "$seed"
    train "extra-$seed" --seed "$seed" --limit 4000 --extra "$rest" --extra-fraction 5/9 --epochs 9
    train "natural-$seed" --seed "$seed" --method natural --epochs 2
    train "init-$seed" --seed "$seed" --init "$out/natural-$seed.safetensors" --epochs 2
    train "preact-$seed" --seed "$seed" --model preact-resnet18-16
    train "few-$seed" --seed "$seed" --limit 4000 --epochs 9
    # Both have the same number of updates, since 100 divides 9,000 and 4,000.
    train "even-all-$seed" --seed "$seed" --batch-size 100
    train "even-extra-$seed" --seed "$seed" --batch-size 100 --limit 4000 --extra "$rest" --extra-fraction 5/9 --epochs 9
done
