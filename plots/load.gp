# Time to the first token against the throughput reached, under rising load; a ring marks the knee.
xroom = 44
load scripts.'/panels.gp'
load scripts.'/style.gp'
set multiplot
set logscale y 10
set xlabel 'throughput (tokens/s)' offset 0,xname_at
set xrange [0:xhi * 1.08]
set xtics step_(xhi * 1.08, 6)
do for [p = 0:panels - 1] {
    eval place
    ylo_ = real(word(lows, p + 1)) / 1.3e3
    yhi_ = real(word(highs, p + 1)) * 1.3e-3
    set yrange [ylo_:yhi_]
    eval log_ticks
    if (c == 0) { yname = 'time to first token (s)'; eval put_yname } else { unset label 8 }
    if (p == panels - 1) { eval legend } else { unset key }
    plot for [i = 1:nseries] input index i - 1 using 3:(1e-3 * column(4 + p)) with linespoints \
            ls style_of(word(styles, i)) lw 1.4 title word(series, i), \
        for [i = 1:nseries] input index i - 1 using 3:($7 > 0 ? 1e-3 * column(4 + p) : NaN) \
            with points pt 6 ps 2 lw 1.2 lc rgb '#222222' notitle
}
unset multiplot
