# shellcheck shell=bash
# The latency laboratory: one command a line, every setting in this file. Sourced by
# `./paper/reproduce latency`, which sets `out` and defines `bench` (the program). A file that is
# complete is not made again. Nothing else should run on the machine.

: "${out:?is set by paper/reproduce}"

backbone=(--model paper/backbone-bytes --budget 3.2%)
methods=(base lora ia3 prefix pedro)
load=(--tenants 64 --prompt 32-96 --output 16-48 --slo 'ttft=100ms,tpot=20ms')

# Batches: anchors, same and different adapters, one forward per tenant.
bench latency "${backbone[@]}" --tenants 1,2,4,8,16 --seconds 60 --out "$out/batch.h5" >/dev/null

# Longer prompts, larger budgets: batches of 8.
for prompt in 16 32 96 144; do # and 64, in batch.h5
    bench latency "${backbone[@]}" --tenants 8 --prompt "$prompt" --seconds 15 \
        --out "$out/prompts/$prompt.h5" >/dev/null
done
for budget in 1.6% 6.4% 12.8%; do # and 3.2%, in batch.h5
    bench latency --model paper/backbone-bytes --budget "$budget" --tenants 8 --seconds 15 \
        --out "$out/budgets/$budget.h5" >/dev/null
done
# Whole generations, with beams.
bench latency "${backbone[@]}" --phases generate --beams 1,3 --tenants 1,8 --seconds 30 \
    --out "$out/generate.h5" >/dev/null

# Served in a closed loop: every method alone, the base model once more (what differs between its two
# runs is noise), and all methods in one batch.
for method in "${methods[@]}"; do
    bench serve "${backbone[@]}" "${load[@]}" --methods "$method" --clients 16 --requests 3000 \
        --out "$out/closed/$method.h5" >/dev/null
done
bench serve "${backbone[@]}" "${load[@]}" --methods base --clients 16 --requests 3000 \
    --out "$out/closed/base-again.h5" >/dev/null
bench serve "${backbone[@]}" "${load[@]}" --clients 16 --requests 4000 \
    --out "$out/closed/mixed.h5" >/dev/null

# Rising load, in rounds: a shared machine has slow minutes.
for round in 1 2 3 4 5; do
    for rate in 50 100 200 300 400 600; do
        for method in base lora pedro; do
            bench serve "${backbone[@]}" "${load[@]}" --methods "$method" --rate "$rate" --seconds 4 \
                --seed "$round" --out "$out/load/$method-$rate-$round.h5" >/dev/null
        done
    done
done

# Bursts and a ramp, all methods in one batch.
bench serve "${backbone[@]}" "${load[@]}" --rate 150 --cv 4 --seconds 15 --out "$out/bursts.h5" >/dev/null
bench serve "${backbone[@]}" "${load[@]}" --rate 20:500 --seconds 15 --out "$out/ramp.h5" >/dev/null

# More tenants; then more of them than there is memory for.
for method in lora ia3 prefix pedro; do
    for tenants in 16 64 256 1024; do
        bench serve "${backbone[@]}" --methods "$method" --tenants "$tenants" --clients 16 \
            --requests 60 --out "$out/tenants/$method-$tenants.h5" >/dev/null
    done
done
bench serve "${backbone[@]}" "${load[@]}" --tenants 1000 --popularity zipf:1.1 --rate 20 \
    --seconds 20 --adapter-memory 2M --out "$out/store.h5" >/dev/null

# Beyond the machine: the time of steps is fitted on a ramp of each method and on loads of adapters,
# checked on Poisson arrivals and bursts, and scaled.
rounds=(1 2 3 4 5)
for round in "${rounds[@]}"; do
    for method in base lora pedro; do
        bench serve "${backbone[@]}" "${load[@]}" --methods "$method" --rate 20:500 --seconds 8 \
            --seed "1$round" --out "$out/capacity/fit-$method-$round.h5" >/dev/null
        for rate in 150 250; do
            bench serve "${backbone[@]}" "${load[@]}" --methods "$method" --rate "$rate" \
                --requests 1500 --seed "2$round" \
                --out "$out/capacity/check-$method-$rate-$round.h5" >/dev/null
        done
        bench serve "${backbone[@]}" "${load[@]}" --methods "$method" --rate 150 --cv 3 \
            --requests 800 --seed "3$round" \
            --out "$out/capacity/check-$method-bursts-$round.h5" >/dev/null
    done
done
bench bench machine --seconds 5 --out "$out/capacity/machine.h5" >/dev/null
fitted=("$out"/capacity/fit-*.h5 "$out/store.h5" --machine "$out/capacity/machine.h5")
checks=()
for file in "$out"/capacity/check-*-1.h5; do
    runs=$file
    for round in "${rounds[@]:1}"; do runs+=,${file%-1.h5}-$round.h5; done
    checks+=(--validate "$runs")
done
question=(--methods 'base,lora,pedro' --slo 'ttft=100ms,tpot=20ms' --popularity zipf:1 --adapter-memory 50M)
bench capacity "${fitted[@]}" "${checks[@]}" --out "$out/capacity/validation.json"
bench capacity "${fitted[@]}" "${question[@]}" --out "$out/capacity/measured.json"
bench capacity "${fitted[@]}" "${question[@]}" --bandwidth 4x --cores 16 --slots 64 \
    --out "$out/capacity/16-cores.json"
bench plot "$out/capacity/measured.json" "$out/capacity/16-cores.json" --out "$out/figures" \
    --figure capacity --terminals svg,png,tex

bench table "$out/batch.h5" "$out/generate.h5" --latency
bench table "$out/closed" "$out/bursts.h5" "$out/ramp.h5" "$out/store.h5" --serving
bench table "$out/batch.h5" "$out/generate.h5" "$out/closed" "$out/bursts.h5" "$out/ramp.h5" "$out/store.h5" --out "$out/tables"
bench plot "$out" --out "$out/figures" --terminals svg,png,tex
bench report "$out" --out "$out/report.html" --title "Pedrobench: latency"
