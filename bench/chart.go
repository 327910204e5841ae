package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// bar is one line of the chart.
type bar struct {
	peer  string
	ratio float64
}

// group is a heading of the chart with its bars: the points of a scenario that share their first label, by geometric mean.
type group struct {
	title string
	bars  []bar
}

// colors of the peers' bars.
var colors = map[string]string{
	"pgbouncer": "#8c959f", "pgbouncer-new": "#59636e", "direct": "#d0d7de",
	"tidemark": "#1f6feb", "tidemark-other": "#bf8700", "tidemark-sharded": "#0a7f70",
}

// groups are the results as bars, without the peer that is the measure of the others.
func groups(results []*result) (all []group) {
	for _, r := range results {
		var labels []string
		for _, pt := range r.points {
			if !slices.Contains(labels, pt.labels[0]) {
				labels = append(labels, pt.labels[0])
			}
		}
		for _, label := range labels {
			g := group{title: fmt.Sprintf("%s, %s: %s", r.name, label, r.cost)}
			for j, p := range r.peers {
				var ratios []float64
				for i, pt := range r.points {
					if ratio := r.ratio(i, j); pt.labels[0] == label && ratio > 0 {
						ratios = append(ratios, ratio)
					}
				}
				if len(ratios) > 0 && j != r.base() {
					g.bars = append(g.bars, bar{p.name, geometricMean(ratios)})
				}
			}
			if len(g.bars) > 0 {
				all = append(all, g)
			}
		}
	}
	return all
}

// Sizes of the chart, in pixels.
const (
	chartWidth, chartLeft, chartRight = 860, 250, 60
	barHeight, groupGap, chartTop     = 13, 9, 46
	chartMost                         = 3.0 // bars beyond this multiple are cut off
)

// chart draws horizontal bars in SVG: cost as a multiple of PgBouncer's.
func chart(results []*result) string {
	all := groups(results)
	height := chartTop + groupGap
	for _, g := range all {
		height += len(g.bars)*barHeight + groupGap
	}
	x := func(ratio float64) float64 {
		return chartLeft + min(ratio, chartMost)/chartMost*(chartWidth-chartLeft-chartRight)
	}
	var w strings.Builder
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" font-family="-apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="11">`+"\n", chartWidth, height)
	w.WriteString("<title>Cost as a multiple of PgBouncer's; less is better</title>\n")
	fmt.Fprintf(&w, `<rect width="%d" height="%d" rx="8" fill="#ffffff"/>`+"\n", chartWidth, height)
	w.WriteString(`<text x="16" y="22" font-size="14" font-weight="600" fill="#1f2328">Cost as a multiple of PgBouncer's (less is better)</text>` + "\n")
	place := 430.0
	for _, name := range peerNames {
		if slices.ContainsFunc(all, func(g group) bool {
			return slices.ContainsFunc(g.bars, func(b bar) bool { return b.peer == name })
		}) {
			fmt.Fprintf(&w, `<rect x="%.0f" y="13" width="10" height="10" fill="%s"/><text x="%.0f" y="22" fill="#1f2328">%s</text>`+"\n", place, colors[name], place+14, name)
			place += float64(34 + 6*len(name))
		}
	}
	for _, tick := range []float64{0, 0.5, 1, 1.5, 2, 2.5, 3} {
		color, width := "#d0d7de", 1
		if tick == 1 {
			color, width = "#cf222e", 2
		}
		fmt.Fprintf(&w, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s" stroke-width="%d"/>`, x(tick), x(tick), chartTop, height-4, color, width)
		fmt.Fprintf(&w, `<text x="%.1f" y="%d" text-anchor="middle" fill="#59636e">%g</text>`+"\n", x(tick), chartTop-5, tick)
	}
	y := chartTop + groupGap
	for _, g := range all {
		fmt.Fprintf(&w, `<text x="%d" y="%d" text-anchor="end" fill="#1f2328">%s</text>`+"\n", chartLeft-8, y+len(g.bars)*barHeight/2+4, html.EscapeString(g.title))
		for _, b := range g.bars {
			fmt.Fprintf(&w, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d" font-size="10" fill="#1f2328" stroke="#ffffff" stroke-width="3" paint-order="stroke">%.2f</text>`+"\n",
				chartLeft, y, x(b.ratio)-chartLeft, barHeight-2, colors[b.peer], x(b.ratio)+4, y+barHeight-4, b.ratio)
			y += barHeight
		}
		y += groupGap
	}
	w.WriteString("</svg>\n")
	return w.String()
}
