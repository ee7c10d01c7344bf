# Latencies of a served workload against 1 / (1 - p), so that tails are as wide as they are rare.
xroom = 44
load scripts.'/panels.gp'
load scripts.'/style.gp'
set multiplot
set logscale xy 10
set xlabel 'percentile (at 1 / (1 - p))' offset 0,xname_at
set xrange [1:xhi * 1.3]
set xtics ('0' 1, '50' 2, '90' 10, '99' 100, '99.9' 1e3, '99.99' 1e4, '99.999' 1e5)
do for [p = 0:panels - 1] {
    eval place
    if (c == 0) { yname = 'ms'; eval put_yname } else { unset label 8 }
    ylo_ = real(word(lows, p + 1)) / 1.15
    yhi_ = real(word(highs, p + 1)) * 1.15
    set yrange [ylo_:yhi_]
    eval log_ticks
    if (p == panels - 1) { eval legend } else { unset key }
    plot for [i = 1:nseries] input index p * nseries + i - 1 using 3:4 with lines \
            ls style_of(word(styles, i)) lw 1.6 title word(series, i)
}
unset multiplot
