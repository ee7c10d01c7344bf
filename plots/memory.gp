# Resident bytes that one more tenant needs, on a log axis.
H = 26 * rows + 70
load scripts.'/style.gp'
unset key
stats input using 3 nooutput name 'M' # before any range is set: it would filter
set logscale x 10
set lmargin at screen left_(22 + 6.9 * widest)
set rmargin at screen left_(W - 70)
set tmargin at screen bottom_(H - 14)
set bmargin at screen bottom_(48)
set yrange [0.4:rows + 0.6]
set xlabel 'resident memory per tenant (bytes, log scale)' offset 0,xname_at
low = 10 ** floor(log10(M_min) - 0.05)
set xrange [0.999 * low:10 ** ceil(log10(M_max) + 0.15)]
set xtics add ('1 kB' 1e3, '10 kB' 1e4, '100 kB' 1e5, '1 MB' 1e6, '10 MB' 1e7, '100 MB' 1e8, \
    '1 GB' 1e9, '10 GB' 1e10)
set ytics ()
do for [i = 1:rows] { set ytics add (word(names, i) rows + 1 - i) }
set grid x noytics ls 101
show_(b) = b < 1e3 ? sprintf('%.0f B', b) : b < 1e6 ? sprintf('%.1f kB', b / 1e3) : \
    b < 1e9 ? sprintf('%.2f MB', b / 1e6) : sprintf('%.2f GB', b / 1e9)
plot for [i = 0:rows - 1] input every ::i::i using (low):2:($3 - low):(0) with vectors nohead \
        ls style_of(word(styles, i + 1)) dt 1 lw 1.2, \
    for [i = 0:rows - 1] input every ::i::i using 3:2 with points \
        ls style_of(word(styles, i + 1)) ps 1.3, \
    input using 3:2:(show_($3)) with labels left offset 1.2,0 font ',11' tc rgb '#222222'
