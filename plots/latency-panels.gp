# Two panels over the size of the batch or the number of tenants; `ycol`, `ylow`, `yhigh` and
# `yname` say what is drawn (token-time.gp, throughput.gp).
panels = 2
xroom = 44
load scripts.'/panels.gp'
load scripts.'/style.gp'
set multiplot
stats input using ycol nooutput name 'M'
stats input using yhigh nooutput name 'Y' # below six samples there are no intervals
top = exists('Y_max') && Y_max > M_max ? Y_max : M_max
set logscale x 2
set xrange [xlo / 1.15:xhi * 1.15]
set xtics ()
t = xlo
while (t <= xhi) { set xtics add (sprintf('%g', t) t); t = 2 * t }
set xlabel xname offset 0,xname_at
set yrange [0:top * 1.06]
do for [p = 0:1] {
    eval place
    set title p == 0 ? 'one adapter for all' : 'different adapters' offset 0,-0.5
    if (p == 0) { eval put_yname } else { unset label 8 }
    if (p == 1) { eval legend } else { unset key }
    plot for [i = 1:nseries] input index p * nseries + i - 1 using 3:ycol with linespoints \
            ls style_of(word(styles, i)) title word(series, i), \
        for [i = 1:nseries] input index p * nseries + i - 1 using 3:ycol:ylow:yhigh \
            with yerrorbars ls style_of(word(styles, i)) dt 1 notitle
}
unset multiplot
