package sim

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Sizes of the picture, in pixels.
const (
	plotWidth, plotHeight = 300, 250 // of a panel
	plotLeft, plotRight   = 44, 8    // around the axes
	plotTop, plotBottom   = 26, 58
	plotHead              = 66
)

var plotColours = []string{"#d9480f", "#1c7ed6", "#868e96", "#2b2b2b"}

// Plot draws runs as SVG: for each workload, in order of appearance, slowdown
// against message length, p99 above and p50 below. Each axis of lengths is
// linear in the number of messages, as in the paper.
func Plot(results []*Result) string {
	var workloads []string
	var schemes []Scheme
	for _, r := range results {
		if !slices.Contains(workloads, r.Workload) {
			workloads = append(workloads, r.Workload)
		}
		if !slices.Contains(schemes, r.Scheme) {
			schemes = append(schemes, r.Scheme)
		}
	}
	var b strings.Builder
	width, height := plotWidth*max(3, len(workloads)), plotHead+2*plotHeight
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="10">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	if len(results) > 0 {
		first := results[0]
		text(&b, 12, 22, `font-size="16" font-weight="bold"`, fmt.Sprintf("Slowdown against message length, %d hosts, %.0f %% load", first.Hosts, 100*first.Load))
	}
	text(&b, 12, 38, `fill="#555"`, fmt.Sprintf("Lengths in bytes, a tenth of the messages apart. Grey line: %.1f, the paper's bound for the p99 of the shortest half.", PaperBound))
	for i, s := range schemes {
		x := 12 + 190*i
		fmt.Fprintf(&b, `<line x1="%d" y1="52" x2="%d" y2="52" stroke="%s" stroke-width="2"/>`+"\n", x, x+22, plotColours[i%len(plotColours)])
		text(&b, float64(x+28), 56, "", s.Title)
	}
	percentiles := []struct {
		name string
		of   func(*Slice) float64
	}{
		{"p99", func(s *Slice) float64 { return s.P99 }},
		{"p50", func(s *Slice) float64 { return s.P50 }},
	}
	for row, p := range percentiles {
		for column, w := range workloads {
			var shown []*Result
			for _, r := range results {
				if r.Workload == w {
					shown = append(shown, r)
				}
			}
			fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", column*plotWidth, plotHead+row*plotHeight)
			plotPanel(&b, w+", "+p.name, shown, schemes, p.of, row == 0)
			b.WriteString("</g>\n")
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// plotPanel draws one percentile of the runs of one workload.
func plotPanel(b *strings.Builder, title string, results []*Result, schemes []Scheme, of func(*Slice) float64, bound bool) {
	const left, right, top, foot = plotLeft, plotWidth - plotRight, plotTop, plotHeight - plotBottom
	most := 4.0
	for _, r := range results {
		for i := range r.Slices {
			most = max(most, of(&r.Slices[i]))
		}
	}
	decades := math.Log10(most) * 1.03
	x := func(share float64) float64 { return left + share*(right-left) }
	y := func(v float64) float64 { return foot - math.Log10(max(1, v))/decades*(foot-top) }

	text(b, left, 16, `font-weight="bold" font-size="12"`, title)
	for power := 1.0; power <= most; power *= 10 {
		for _, k := range []float64{1, 2, 5} {
			if v := k * power; v <= most {
				fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#e5e5e5"/>`+"\n", left, y(v), right, y(v))
				text(b, left-5, y(v)+3, `text-anchor="end"`, thousands(int(v)))
			}
		}
	}
	if bound {
		fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#777" stroke-dasharray="4 3"/>`+"\n", left, y(PaperBound), x(0.5), y(PaperBound))
	}
	fmt.Fprintf(b, `<path d="M%d %dV%dH%d" fill="none" stroke="#555"/>`+"\n", left, top, foot, right)
	parts := len(results[0].Slices)
	for i, s := range results[0].Slices {
		fmt.Fprintf(b, `<text transform="translate(%.1f %d) rotate(-60)" text-anchor="end" font-size="9">%s</text>`+"\n",
			x(float64(i+1)/float64(parts))+3, foot+8, thousands(s.Longest))
	}
	for _, r := range results {
		var points strings.Builder
		for i := range r.Slices {
			fmt.Fprintf(&points, "%.1f,%.1f ", x((float64(i)+0.5)/float64(parts)), y(of(&r.Slices[i])))
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.6"/>`+"\n",
			strings.TrimSpace(points.String()), plotColours[slices.Index(schemes, r.Scheme)%len(plotColours)])
	}
}

// text writes a text element; attributes are markup.
func text(b *strings.Builder, x, y float64, attributes, content string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" %s>`, x, y, attributes)
	// A strings.Builder takes everything.
	_ = xml.EscapeText(b, []byte(content))
	b.WriteString("</text>\n")
}
