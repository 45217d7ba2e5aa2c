package main

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
)

// Sizes of the picture, in pixels.
const (
	panelWidth   = 400
	panelHeight  = 210
	panelColumns = 3
	panelMargin  = 16
	barsTop      = 44 // below the panel's title
	barsBottom   = 26 // above its lower edge, for the names
	headHeight   = 76
)

// colours of the contenders, in the order of the table; ours stands out.
var colours = []string{"#9aa5b1", "#7b8794", "#b8a07e", "#8a6d3b", "#7fa99b"}

const ourColour = "#d9480f"

// panel is one row of the table, with all its modes.
type panel struct {
	section string
	lines   []*line
}

// panels lists what is drawn: every row that compares, one panel for both
// modes.
func (r *results) panels() (list []*panel) {
	for _, l := range r.Rows {
		if len(r.Peers) > 1 && l.measured() < 2 {
			continue
		}
		i := slices.IndexFunc(list, func(p *panel) bool { return p.lines[0].Key == l.Key })
		if i >= 0 {
			list[i].lines = append(list[i].lines, l)
			continue
		}
		list = append(list, &panel{l.Section, []*line{l}})
	}
	return list
}

// measured is how many contenders have figures.
func (l *line) measured() (n int) {
	for _, c := range l.Cells {
		if len(c.Runs) > 0 {
			n++
		}
	}
	return n
}

// plot draws grouped bars for each row, as SVG: the median as a bar, the span
// of all runs as a thin line over it.
func (r *results) plot() string {
	panels := r.panels()
	rows := (len(panels) + panelColumns - 1) / panelColumns
	width, height := panelColumns*panelWidth, headHeight+rows*panelHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	text(&b, panelMargin, 24, "start", `font-size="17" font-weight="bold"`, "tougw side by side with others, "+r.When.Format("2006-01-02 15:04 MST"))
	text(&b, panelMargin, 42, "start", `fill="#555"`, fmt.Sprintf("%s, %d cores, Linux %s, %s; medians of up to %d rounds, thin lines from the least to the most",
		r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Rounds))
	text(&b, panelMargin, 58, "start", `fill="#555"`, "Full bars: UDP segmentation offload on, or no matter. Pale bars: off. A gap below the top: the bar is higher than the picture.")
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%panelColumns*panelWidth, headHeight+i/panelColumns*panelHeight)
		r.drawPanel(&b, p)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (r *results) drawPanel(b *strings.Builder, p *panel) {
	first := p.lines[0]
	text(b, panelMargin, 16, "start", `fill="#777" font-size="9"`, p.section)
	better := " (" + first.Better + " is better)"
	if first.Better == "neither" {
		better = ""
	}
	text(b, panelMargin, 30, "start", `font-weight="bold"`, fmt.Sprintf("%s, %s%s", first.Title, first.Unit, better))
	// The kernel alone is so far ahead that it would flatten the others.
	most := 0.0
	for _, l := range p.lines {
		for _, peer := range r.Peers {
			if c := l.Cells[peer.Name]; c != nil && !peer.kernel {
				most = max(most, c.Max)
			}
		}
	}
	if most <= 0 {
		most = 1
	}
	const base = panelHeight - barsBottom
	scale := float64(base-barsTop-12) / most
	slot := float64(panelWidth-2*panelMargin) / float64(len(r.Peers))
	for i, peer := range r.Peers {
		left := panelMargin + float64(i)*slot
		colour := colours[i%len(colours)]
		if peer.Name == ours {
			colour = ourColour
		}
		width := (slot - 8) / float64(len(p.lines))
		for j, l := range p.lines {
			r.drawBar(b, l.Cells[peer.Name], left+4+float64(j)*width, width-1, base, scale, colour, l.Offload == offloadOff)
		}
		text(b, left+slot/2, base+14, "middle", `font-size="9"`, peer.Name)
	}
	fmt.Fprintf(b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#555"/>`+"\n", panelMargin, base, panelWidth-panelMargin, base)
}

// drawBar draws the bar of a cell, whose left edge and foot are given.
func (r *results) drawBar(b *strings.Builder, c *cell, left, width float64, foot int, scale float64, colour string, pale bool) {
	middle := left + width/2
	if c == nil || len(c.Runs) == 0 {
		text(b, middle, float64(foot)-4, "middle", `font-size="9" fill="#999"`, "-")
		return
	}
	opacity := 1.0
	if pale {
		opacity = 0.45
	}
	y := func(v float64) float64 { return max(barsTop+12, float64(foot)-max(0, v)*scale) }
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" fill-opacity="%.2f"/>`+"\n",
		left, y(c.Median), width, float64(foot)-y(c.Median), colour, opacity)
	if float64(foot)-c.Median*scale < barsTop+12 {
		fmt.Fprintf(b, `<rect x="%.1f" y="%d" width="%.1f" height="4" fill="white"/>`+"\n", left, barsTop+20, width)
	}
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#333" stroke-width="0.8"/>`+"\n", middle, y(c.Min), middle, y(c.Max))
	text(b, middle, y(c.Max)-3, "middle", `font-size="9"`, figure(c.Median))
}

// text writes a text element; attributes are markup.
func text[N int | float64](b *strings.Builder, x, y N, anchor, attributes, content string) {
	fmt.Fprintf(b, `<text x="%v" y="%v" text-anchor="%s" %s>`, x, y, anchor, attributes)
	// A strings.Builder takes everything.
	_ = xml.EscapeText(b, []byte(content))
	b.WriteString("</text>\n")
}
