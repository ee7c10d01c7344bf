# The largest rate of requests within the limits, against the number of tenants.
xroom = 44
load scripts.'/panels.gp'
load scripts.'/style.gp'
set multiplot
p = 0
eval place
set title 'largest rate within the limits (requests/s)'
set logscale x 10
set xlabel 'tenants' offset 0,xname_at
set xrange [xlo / 1.3:xhi * 1.3]
set yrange [0:yhi * 1.1]
set ytics step_(yhi * 1.1, 6)
set xtics ()
k = floor(log10(xlo / 1.3))
while (10.0 ** k <= xhi * 1.3) {
    set xtics add (sprintf(k < 6 ? '%.0f' : '%.0e', 10.0 ** k) 10.0 ** k 0)
    do for [d = 2:9] { set xtics add ('' d * 10.0 ** k 1) }
    k = k + 1
}
eval legend
plot for [i = 1:nseries] input index i - 1 using 2:3 with linespoints \
        ls style_of(word(styles, i)) lw 1.4 title word(series, i)
unset multiplot
