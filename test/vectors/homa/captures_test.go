package captures

import (
	"io/fs"
	"testing"
)

// TestIndex: the index lists every capture, and each is as it says.
func TestIndex(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, c := range all {
		listed[c.File] = true
		frames, err := c.Frames()
		if err != nil {
			t.Error(err)
			continue
		}
		want, icmp, cut := 0, 0, false
		for _, n := range c.Packets {
			want += n
		}
		for _, f := range frames {
			if f.ICMP() {
				icmp++
			}
			if (c.IP == 4) != f.Src.Is4() || (c.IP == 4) != f.Dst.Is4() {
				t.Errorf("%s: from %v to %v", c.File, f.Src, f.Dst)
			}
			cut = cut || f.Length > len(f.Payload)
		}
		if len(frames) != want || icmp != c.Packets["ICMP"] || cut != c.Cut || c.Scenario == "" {
			t.Errorf("%s: %d frames, %d of ICMP, cut %v: the index says %d, %d, %v",
				c.File, len(frames), icmp, cut, want, c.Packets["ICMP"], c.Cut)
		}
	}
	files, err := fs.Glob(files, "*.pcap")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !listed[f] {
			t.Errorf("%s is not in index.json", f)
		}
	}
	if len(all) != 127 || len(files) != 127 {
		t.Errorf("%d captures, %d in the index", len(files), len(all))
	}
}
