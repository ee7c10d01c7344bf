# Lowest validation loss against the learning rate; a ring marks every method's best rate, a cross on
# the upper edge a rate at which a run diverged.
xroom = 44
load scripts.'/panels.gp'
load scripts.'/style.gp'
stats input using 3 nooutput name 'X'
set multiplot
set logscale xy 10
set xlabel 'learning rate' offset 0,xname_at
set xrange [X_min / 1.4:X_max * 1.4]
set format x '%.0e'
set xtics ()
k = floor(log10(X_min / 1.4))
while (10.0 ** k <= X_max * 1.4) {
    set xtics add (sprintf('%g', 10.0 ** k) 10.0 ** k 0)
    do for [d = 2:9] { set xtics add ('' d * 10.0 ** k 1) }
    k = k + 1
}
set y2range [0:1]
set bars 0
do for [p = 0:panels - 1] {
    eval place
    lo = real(word(lows, p + 1))
    hi = real(word(highs, p + 1))
    if (hi < lo) { eval empty } else { unset label 9 }
    lo = lo > hi ? 0.1 : lo
    hi = hi < lo ? 1 : hi
    ylo_ = lo / 1.1
    yhi_ = hi * 1.15
    set yrange [ylo_:yhi_]
    eval log_ticks
    if (c == 0) { yname = 'lowest validation loss'; eval put_yname } else { unset label 8 }
    if (p == panels - 1) { eval legend } else { unset key }
    plot for [i = 1:nseries] input index p * nseries + i - 1 using 3:4:5:6 with yerrorlines \
            ls style_of(word(styles, i)) lw 1.4 title word(series, i), \
        for [i = 1:nseries] input index p * nseries + i - 1 using 3:($7 > 0 ? $4 : NaN) \
            with points pt 6 ps (nseries > 8 ? 1.3 : 2) lw 1.2 lc rgb '#222222' notitle, \
        for [i = 1:nseries] input index p * nseries + i - 1 using 3:($8 > 0 ? 0.97 : NaN) \
            axes x1y2 with points ls style_of(word(styles, i)) pt 2 ps 0.9 notitle
}
unset multiplot
