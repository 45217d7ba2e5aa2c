package sim

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func load(t *testing.T, name string) *Workload {
	t.Helper()
	w, err := LoadWorkload(name)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWorkloadsHaveTheirPublishedShape(t *testing.T) {
	for _, c := range []struct {
		name                    string
		mean                    float64
		tenth, half, ninth, max int
	}{
		{"W1", 189.173, 8, 27, 503, 100_000},
		{"W2", 441.603, 8, 269, 512, 3_529_904},
		{"W3", 2927.68, 36, 268, 1755, 15_158_197},
		{"W4", 127_796.6, 315, 662, 120_373, 10_000_000},
		{"W5", 2_564_689.7, 5720, 72_030, 4_899_510, 29_400_000},
	} {
		w := load(t, strings.ToLower(c.name))
		mean := w.Mean(func(length int) float64 { return float64(length) })
		if math.Abs(mean/c.mean-1) > 1e-5 {
			t.Errorf("%s: mean length %.3f, want %.3f", c.name, mean, c.mean)
		}
		got := [4]int{w.Quantile(0.1), w.Quantile(0.5), w.Quantile(0.9), w.Quantile(1)}
		if want := [4]int{c.tenth, c.half, c.ninth, c.max}; got != want {
			t.Errorf("%s: quantiles %v, want %v", c.name, got, want)
		}
		if w.Quantile(0) != w.lengths[0] || w.Longest() != c.max {
			t.Errorf("%s: from %d to %d", c.name, w.Quantile(0), w.Longest())
		}
	}
}

func TestSamplesFollowTheWorkload(t *testing.T) {
	w := load(t, "W3")
	random := rand.New(rand.NewPCG(3, 4))
	const n = 200_000
	short := 0
	for range n {
		if w.Quantile(random.Float64()) <= 268 {
			short++
		}
	}
	if share := float64(short) / n; math.Abs(share-0.513) > 0.02 {
		t.Errorf("%.3f of the samples have up to 268 bytes, want 0.513", share)
	}
}

func TestBadWorkloadsAreRefused(t *testing.T) {
	if _, err := LoadWorkload("W6"); err == nil || !strings.Contains(err.Error(), "W1, W2") {
		t.Errorf("W6: %v", err)
	}
	for text, want := range map[string]string{
		"":                "no length",
		"# only words\n":  "no length",
		"x 1\n":           "frequency",
		"0 1\n":           "frequency",
		"NaN 1\n":         "frequency",
		"+Inf 1\n":        "frequency",
		"0.5 0\n":         "length",
		"0.5 many\n":      "length",
		"0.5 4294967296":  "length",
		"0.5 7\n\n0.5 7 ": "line 3",
	} {
		if _, err := parseWorkload("T", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something about %q", text, err, want)
		}
	}
}

func TestPrioritiesFollowTheWorkload(t *testing.T) {
	unscheduled := PaperFabric().RTTBytes()
	for _, c := range []struct {
		name   string
		levels int // for unscheduled bytes
	}{{"W1", 7}, {"W2", 6}, {"W3", 3}, {"W4", 1}, {"W5", 1}} {
		w := load(t, c.name)
		p := Allocate(w, unscheduled)
		if p.Unscheduled != c.levels {
			t.Errorf("%s: %d unscheduled levels, want %d", c.name, p.Unscheduled, c.levels)
		}
		lowest := len(p.Cutoffs) - p.Unscheduled
		for i, cutoff := range p.Cutoffs {
			switch {
			case i < lowest && cutoff != 0:
				t.Errorf("%s: level %d is for scheduled bytes and has cutoff %d", c.name, i, cutoff)
			case i == lowest && int(cutoff) != w.Longest():
				t.Errorf("%s: the lowest unscheduled level ends at %d, want %d", c.name, cutoff, w.Longest())
			case i > lowest && (cutoff == 0 || cutoff > p.Cutoffs[i-1]):
				t.Errorf("%s: cutoffs %v do not fall", c.name, p.Cutoffs)
			}
		}
	}
}

func TestLevelsCarryEqualBytes(t *testing.T) {
	w := load(t, "W3")
	unscheduled := PaperFabric().RTTBytes()
	p := Allocate(w, unscheduled)
	bytes := make([]float64, len(p.Cutoffs))
	before := 0.0
	for i, length := range w.lengths {
		level := 7
		for level > 0 && int(p.Cutoffs[level]) < length {
			level--
		}
		bytes[level] += (w.upTo[i] - before) * float64(messageWire(min(length, unscheduled)))
		before = w.upTo[i]
	}
	total := 0.0
	for _, b := range bytes {
		total += b
	}
	for level := 8 - p.Unscheduled; level < 8; level++ {
		if share := bytes[level] / total * float64(p.Unscheduled); share < 0.85 || share > 1.15 {
			t.Errorf("level %d carries %.2f of its part", level, share)
		}
	}
}

func TestRTTBytesOfThePaper(t *testing.T) {
	// The paper says 9.7 kB on the link, which is a little under seven full packets.
	if got := PaperFabric().RTTBytes(); got != 7*maxData {
		t.Errorf("%d bytes, want %d", got, 7*maxData)
	}
}
