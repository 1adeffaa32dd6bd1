#!/bin/sh
# Report what gpuprop does on this machine's GPU, in about eight minutes:
#
#     sh gpu_report.sh DIR
#
# It needs the installed package and nothing else, and uses PyTorch and nvidia-smi where it finds them. DIR gets the
# files of each part as soon as the part has ended, the most important part first: NAME.json (figures), NAME.txt (what
# was printed) and NAME.status (ok, failed or stopped, and the seconds of the host's clock). A part that fails or takes
# too long ends alone. Run the same command again to go on: parts that are "ok" are not repeated. When the time is over,
# no further part begins. DIR/clocks.csv has the clocks, temperature and power of the GPU while the parts ran.
#
# Times are shown only of a GPU that nvidia-smi lists. On a virtual GPU everything runs, and no time is printed.
#
#     GPU_REPORT_DEVICE   the device, default cuda
#     GPU_REPORT_SECONDS  when to begin no further part, default 480
#     GPU_REPORT_SLOW     a factor for the time that each part may take, default 1
#     GPUPROP             the command, default gpuprop; "python -m gpuprop" is another
#     GPU_REPORT_PYTHON   the Python in which PyTorch is looked for, default python3

set -u
[ $# -eq 1 ] || { echo "usage: sh gpu_report.sh DIR" >&2; exit 2; }
dir=$1
device=${GPU_REPORT_DEVICE:-cuda}
seconds=${GPU_REPORT_SECONDS:-480}
slow=${GPU_REPORT_SLOW:-1}
gpuprop=${GPUPROP:-gpuprop}
mkdir -p "$dir" || exit 1
begin=$(date +%s)
left=""

# part NAME SECONDS COMMAND...: run a command that prints a result, for at most so many seconds.
part() {
    name=$1 most=$(($2 * slow))
    shift 2
    grep -q '^ok' "$dir/$name.status" 2>/dev/null && return
    if [ $(($(date +%s) - begin)) -ge "$seconds" ]; then
        left="$left $name"
        return
    fi
    printf '%s ... ' "$name"
    started=$(date +%s)
    timeout -k 10 "$most" "$@" >"$dir/$name.txt" 2>&1 </dev/null
    code=$?
    took=$(($(date +%s) - started))
    case $code in
        0) status="ok, $took s" ;;
        124 | 137) status="stopped after $took s" ;;
        *) status="failed with status $code after $took s: $(tail -n 1 "$dir/$name.txt")" ;;
    esac
    echo "$status" | tee "$dir/$name.status"
}

# report NAME SECONDS ARGUMENTS...: the same for a command of gpuprop that writes a report.
report() {
    name=$1 most=$2
    shift 2
    part "$name" "$most" $gpuprop "$@" --device "$device" --report "$dir/$name.json"
}

# mnist NAME SECONDS ARGUMENTS...: train on MNIST, and keep the history and the test report.
mnist() {
    name=$1 most=$2
    shift 2
    part "$name" "$most" $gpuprop train mnist --epochs 5 --overwrite --out "$dir/$name" "$@"
}

machine() {
    $gpuprop info
    nvidia-smi --query-gpu=name,driver_version,compute_cap,clocks.max.sm,clocks.max.mem,clocks.sm,clocks.mem,power.limit \
        --format=csv 2>&1 || echo "nvidia-smi does not answer"
}

fields=timestamp,clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_throttle_reasons.active
if nvidia-smi --query-gpu=$fields --format=csv >/dev/null 2>&1; then
    nvidia-smi --query-gpu=$fields --format=csv -l 2 >>"$dir/clocks.csv" 2>/dev/null &
    watcher=$!
    trap 'kill $watcher 2>/dev/null' EXIT
    trap 'exit 130' INT TERM
fi

machine >"$dir/machine.txt" 2>&1

# What the GPU computes must be right before anything else counts.
report selfcheck-quick 180 selfcheck --quick
mnist mnist-gpu 60 --device "$device"

# The products, kernel by kernel, against CuPy's calls and cuBLAS; then updates, and an epoch.
for kernel in gradient forward gather delta; do
    report "kernel-$kernel" 40 bench kernels --only $kernel --rounds 20
done
report step 60 bench step --no-torch
report epoch 45 bench epoch --no-torch

# Tensor cores. A device without them, and a version without kernels for them, says so.
for precision in tf32x3 tf32 bf16; do
    mnist "mnist-$precision" 60 --device "$device" --precision $precision
done
for kernel in gradient forward gather delta; do
    report "kernel-$kernel-precisions" 60 bench kernels --only $kernel --rounds 20 --precision all
done
report step-precisions 60 bench step --no-torch --precision all

# PyTorch: eager, compiled where Triton is installed, and as a CUDA graph.
if ${GPU_REPORT_PYTHON:-python3} -c "import torch" 2>/dev/null; then
    report step-torch 120 bench step --config a,b,c
    report epoch-torch 90 bench epoch
fi

# What is left: the other kernels, the CPU beside the GPU, and all of the selfcheck, which compiles for minutes.
for kernel in head wide rows update max_norm; do
    report "kernel-$kernel" 40 bench kernels --only $kernel --rounds 20
done
mnist mnist-cpu 120 --device cpu
report selfcheck 900 selfcheck

machine >"$dir/machine-after.txt" 2>&1
for file in "$dir"/*.status; do
    echo "$(basename "$file" .status): $(cat "$file")"
done >"$dir/summary.txt"
[ -z "$left" ] || echo "The time is over; these parts are left:$left. Run the same command again to go on."
echo "$dir has the results; summary.txt lists the parts."
