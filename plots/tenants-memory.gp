# Bytes of all tenants' adapters against their number, both on log axes.
xroom = 44
load scripts.'/panels.gp'
load scripts.'/style.gp'
set multiplot
p = 0
eval place
set title 'adapters in memory (bytes)'
set logscale xy 10
set xlabel 'tenants' offset 0,xname_at
top_ = (yhi > backbone ? yhi : backbone) * 2
set xrange [xlo / 1.3:xhi * 1.3]
set yrange [ylo / 2:top_]
set xtics ()
k = floor(log10(xlo / 1.3))
while (10.0 ** k <= xhi * 1.3) {
    set xtics add (gprintf('%g', 10.0 ** k) 10.0 ** k 0)
    do for [d = 2:9] { set xtics add ('' d * 10.0 ** k 1) }
    k = k + 1
}
set ytics ('1 kB' 1e3, '10 kB' 1e4, '100 kB' 1e5, '1 MB' 1e6, '10 MB' 1e7, '100 MB' 1e8, \
    '1 GB' 1e9, '10 GB' 1e10, '100 GB' 1e11)
eval legend
set label 1 'backbone' at graph 0.99, first backbone right offset 0,0.6 font ',10' tc rgb '#666666'
set arrow 1 from graph 0, first backbone to graph 1, first backbone nohead ls 102 back
plot for [i = 1:nseries] input index i - 1 using 2:3 with linespoints \
        ls style_of(word(styles, i)) lw 1.4 title word(series, i)
unset multiplot
