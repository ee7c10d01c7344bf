# Two panels over what differs between runs: times on the left, throughput on the right. The program
# sets `xs`, `xlabels`, `xname`, `yname` and `batch`, which says how large the batches are.
panels = 2
xroom = 44
load scripts.'/panels.gp'
load scripts.'/style.gp'
set multiplot
nx = words(xs)
set logscale x 2
set xrange [word(xs, 1) / 1.15:word(xs, nx) * 1.15]
set xtics ()
do for [i = 1:nx] { set xtics add (word(xlabels, i) real(word(xs, i))) }
set xlabel xname offset 0,xname_at
set yrange [0:*]
do for [p = 0:1] {
    eval place
    set title (p == 0 ? 'latency, '.batch : 'throughput (tokens/s of the batch)') offset 0,-0.5
    if (p == 0) { eval put_yname } else { unset label 8 }
    if (p == 1) { eval legend } else { unset key }
    if (p == 0) {
        plot for [i = 1:nseries] input index i - 1 using 2:3 with linespoints \
                ls style_of(word(styles, i)) title word(series, i), \
            for [i = 1:nseries] input index i - 1 using 2:3:4:5 with yerrorbars \
                ls style_of(word(styles, i)) dt 1 notitle # none below six samples
    } else {
        plot for [i = 1:nseries] input index i - 1 using 2:6 with linespoints \
            ls style_of(word(styles, i)) title word(series, i)
    }
}
unset multiplot
