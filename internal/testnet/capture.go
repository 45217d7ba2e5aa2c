package testnet

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// CaptureOptions say what a Capture keeps.
type CaptureOptions struct {
	// Link to listen on; "any" for all of the namespace.
	Link string
	// File to write, in the format of libpcap.
	File string
	// Filter in the language of tcpdump; empty for everything.
	Filter string
	// Snap is how many bytes of each packet are kept; 0 keeps all.
	Snap int
	// Megabytes bounds what is kept: the newest packets, in File0 and File1.
	// 0 keeps all, in File.
	Megabytes int
}

// Capture is a running packet capture.
type Capture struct {
	process *Process
	report  *Output
	delay   time.Duration
}

// blockTime is how long the kernel keeps packets of a block that is not full
// from tcpdump, which loses them when it is stopped. Where little of each packet
// is kept they are handed over one by one; whole packets would need too much
// memory that way.
const blockTime = 1100 * time.Millisecond

// Capture starts to record packets and returns once every packet from now on
// is seen.
func (ns *Namespace) Capture(ctx context.Context, o CaptureOptions) (*Capture, error) {
	args := []string{"-i", o.Link, "-w", o.File, "-n", "-U", "-B", "32768", "-s", strconv.Itoa(o.Snap), "-Z", "root"}
	if o.Snap > 0 {
		args = append(args, "--immediate-mode")
	}
	if o.Megabytes > 0 {
		args = append(args, "-C", strconv.Itoa(max(1, o.Megabytes/2)), "-W", "2")
	}
	if o.Filter != "" {
		args = append(args, o.Filter)
	}
	cmd := exec.Command("tcpdump", args...)
	report := &Output{}
	cmd.Stderr = report
	p, err := ns.Start(cmd)
	if err != nil {
		return nil, err
	}
	err = Poll(ctx, func() error {
		if strings.Contains(report.String(), "listening on") {
			return nil
		}
		return fmt.Errorf("testnet: tcpdump is not ready: %s", report)
	})
	if err != nil {
		p.Kill()
		return nil, err
	}
	c := &Capture{process: p, report: report}
	if o.Snap == 0 {
		c.delay = blockTime
	}
	return c, nil
}

var (
	captured = regexp.MustCompile(`(\d+) packets? captured`)
	lost     = regexp.MustCompile(`(\d+) packets? dropped by kernel`)
)

// Stop ends the capture and says how many packets it holds and how many it
// missed because the disk or the CPU was too slow.
func (c *Capture) Stop() (packets, missed int, err error) {
	time.Sleep(c.delay)
	if err := c.process.Stop(10 * time.Second); err != nil {
		return 0, 0, err
	}
	report := c.report.String()
	if m := captured.FindStringSubmatch(report); m != nil {
		packets, _ = strconv.Atoi(m[1])
	}
	if m := lost.FindStringSubmatch(report); m != nil {
		missed, _ = strconv.Atoi(m[1])
	}
	return packets, missed, nil
}
