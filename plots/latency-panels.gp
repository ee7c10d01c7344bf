# Two panels over the size of the batch or the number of tenants; `ycol`, `ylow`, `yhigh` and
# `yname` say what is drawn (token-time.gp, throughput.gp).
panel = 262
legend = 96 + 7.6 * widest
W = 84 + 326 + panel + legend
H = 330
H = H > 46 + 23 * nseries ? H : 46 + 23 * nseries
load scripts.'/style.gp'
set multiplot
stats input using yhigh nooutput name 'Y'
set logscale x 2
set xrange [xlo / 1.15:xhi * 1.15]
set xtics ()
t = xlo
while (t <= xhi) { set xtics add (sprintf('%g', t) t); t = 2 * t }
set xlabel xname offset 0,0.3
set yrange [0:Y_max * 1.06]
do for [p = 0:1] {
    x0 = 84 + 326 * p
    set lmargin at screen left_(x0)
    set rmargin at screen left_(x0 + panel)
    set tmargin at screen bottom_(H - 34)
    set bmargin at screen bottom_(62)
    set title p == 0 ? 'one adapter for all' : 'different adapters' offset 0,-0.4
    if (p == 0) { set ylabel yname offset 0.6,0 } else { unset ylabel }
    if (p == 1) {
        set key at screen left_(W - legend + 14), screen bottom_(H - 34) left top reverse Left \
            maxrows 99 samplen 3 spacing 1.25 width 0
    } else { unset key }
    plot for [i = 1:nseries] input index p * nseries + i - 1 using 3:ycol:ylow:yhigh \
            with yerrorlines ls style_of(word(styles, i)) title word(series, i)
}
unset multiplot
