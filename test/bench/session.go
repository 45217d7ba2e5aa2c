package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tougw/tougw/test/lab"
)

// session is one run of the benchmark.
type session struct {
	options options
	tools   *tools
	all     []*contender
	parts   []string
	results *results
	start   time.Time

	// stands are the contenders that are up, by name.
	stands map[string]*stand
	// restarts counts how often a contender was started anew.
	restarts map[string]int
}

// mostRestarts is how often a contender may fail until it is given up.
const mostRestarts = 3

// newSession reads the options. The caller must close the session.
func newSession(ctx context.Context, o options) (*session, error) {
	s := &session{options: o, start: time.Now(), stands: map[string]*stand{}, restarts: map[string]int{}, parts: partNames}
	var err error
	if s.all, err = chosen(contenders(o.nebula), o.only); err != nil {
		return nil, err
	}
	if o.rows != "" {
		s.parts = strings.Split(o.rows, ",")
		for _, p := range s.parts {
			if !slices.Contains(partNames, p) {
				return nil, fmt.Errorf("no part %q; there are %s", p, strings.Join(partNames, ", "))
			}
		}
	}
	s.results = newResults(ctx, o, s.all)
	s.tools, err = newTools(o.binary)
	return s, err
}

// progress prints a line with the time since the start.
func (s *session) progress(format string, args ...any) {
	fmt.Printf("%5.0f s  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

func (s *session) wants(part string) bool { return slices.Contains(s.parts, part) }

// late says that the time is up; the results then have fewer rounds.
func (s *session) late() bool {
	if time.Since(s.start) < s.options.limit {
		return false
	}
	s.results.Note = fmt.Sprintf("stopped after %v (-limit): some rows have fewer rounds", s.options.limit)
	return true
}

// up are the contenders that have not failed.
func (s *session) up() (list []*contender) {
	for _, c := range s.all {
		if s.results.missing(c.name) == "" {
			list = append(list, c)
		}
	}
	return list
}

// measure does everything. Its errors are those of ours and of the machine; a
// contender that cannot be had is a remark in the results.
func (s *session) measure(ctx context.Context) error {
	s.install(ctx)
	if s.options.micro {
		s.progress("benchmarks of the packages")
		var err error
		if s.results.Micro, err = runMicro(ctx); err != nil {
			s.results.MicroError = err.Error()
			s.progress("benchmarks of the packages: %v", err)
		}
	}
	if s.wants(partMemory) {
		if err := s.memory(ctx); err != nil {
			return err
		}
	}
	if slices.Equal(s.parts, []string{partMemory}) {
		return s.verdict(ctx)
	}
	for _, c := range s.up() {
		s.bringUp(ctx, c)
	}
	if s.results.missing(ours) != "" {
		return s.verdict(ctx)
	}
	if s.wants(partIdle) {
		s.progress("no traffic for %v", idleTime)
		samples, err := idleCPU(ctx, s.stands)
		if err != nil {
			return err
		}
		for name, list := range samples {
			s.record(name, anyMode, 0, list)
		}
	}
	if err := s.rounds(ctx); err != nil {
		return err
	}
	return s.verdict(ctx)
}

// verdict is an error when ours is among those that failed.
func (s *session) verdict(ctx context.Context) error {
	s.results.finish()
	if reason := s.results.missing(ours); reason != "" && ctx.Err() == nil {
		return fmt.Errorf("%s: %s", ours, reason)
	}
	return ctx.Err()
}

func (s *session) install(ctx context.Context) {
	for _, c := range s.all {
		if c.install == nil {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, installPatience)
		version, err := c.install(limited, s.tools)
		cancel()
		if err != nil {
			s.fail(c, fmt.Errorf("cannot be installed: %w", err))
			continue
		}
		s.results.peer(c.name).Version = version
		s.progress("%s: %s", c.name, version)
	}
}

// fail gives a contender up.
func (s *session) fail(c *contender, err error) {
	s.results.peer(c.name).Missing = oneLine(err)
	s.progress("%s: n/a: %v", c.name, err)
}

// bringUp starts a contender, or gives it up.
func (s *session) bringUp(ctx context.Context, c *contender) {
	stand, err := c.open(ctx, s.tools)
	if err != nil {
		if ctx.Err() == nil {
			s.fail(c, fmt.Errorf("does not start: %w", err))
		}
		return
	}
	s.stands[c.name] = stand
	s.results.peer(c.name).Details = stand.details
	s.progress("%s is up  %s", c.name, stand.details)
}

// takeDown stops a contender, if it is up.
func (s *session) takeDown(c *contender) error {
	stand := s.stands[c.name]
	if stand == nil {
		return nil
	}
	delete(s.stands, c.name)
	if err := stand.close(); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// close takes down what is up.
func (s *session) close() error {
	var errs []error
	for _, c := range s.all {
		errs = append(errs, s.takeDown(c))
	}
	return errors.Join(append(errs, s.tools.close())...)
}

// memory measures each contender alone and freshly started, in rounds.
func (s *session) memory(ctx context.Context) error {
	for round := range s.options.rounds {
		for _, c := range s.up() {
			if c.kernel {
				continue
			}
			if s.late() {
				return nil
			}
			counts := flowCounts[:2]
			if c.name == ours && s.options.full {
				counts = flowCounts
			}
			s.bringUp(ctx, c)
			stand := s.stands[c.name]
			if stand == nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				continue
			}
			what := measurement{part: partMemory, title: partMemory, rows: memoryRows(counts, c.name == ours)}
			samples, err := memory(ctx, stand, counts, c.name == ours)
			s.note(ctx, c, anyMode, round, what, samples, err)
			if err := s.takeDown(c); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// rounds does all the measurements that load the contenders.
func (s *session) rounds(ctx context.Context) error {
	for round := range s.options.rounds {
		for _, m := range []mode{offloadOn, offloadOff} {
			for _, measurement := range measurements(s.options, m) {
				if !s.wants(measurement.part) {
					continue
				}
				if err := s.turn(ctx, round, m, measurement); err != nil {
					return err
				}
				if s.late() {
					return nil
				}
			}
		}
	}
	return nil
}

// turn does one measurement to each contender, another one first each round.
func (s *session) turn(ctx context.Context, round int, m mode, what measurement) error {
	list := s.up()
	for i := range list {
		c := list[(i+round)%len(list)]
		stand := s.stands[c.name]
		if err := stand.setSegmentation(m == offloadOn); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		samples, err := s.undisturbed(ctx, func() ([]sample, error) {
			if folder := s.options.profile; folder != "" {
				return profile(ctx, folder, what.title, round, stand.ends.sockets, func() ([]sample, error) { return what.run(ctx, stand) })
			}
			return what.run(ctx, stand)
		})
		s.note(ctx, c, m, round, what, samples, err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if err := s.restart(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// undisturbed does run until the hypervisor leaves it alone.
func (s *session) undisturbed(ctx context.Context, run func() ([]sample, error)) (samples []sample, err error) {
	_, repeats, err := lab.Undisturbed(ctx, func() (err error) {
		samples, err = run()
		return err
	}, func() bool { return !s.late() })
	s.results.Repeated += repeats
	return samples, err
}

// note records what a run gave, and a failure with its reason.
func (s *session) note(ctx context.Context, c *contender, m mode, round int, what measurement, samples []sample, err error) {
	if ctx.Err() != nil {
		return
	}
	s.record(c.name, m, round, samples)
	text := brief(samples)
	if err != nil {
		text += " failed: " + err.Error()
		s.results.failed(c.name, failure{Round: round + 1, Offload: m, What: what.title, Why: oneLine(err), rows: what.rows})
	}
	offload := ""
	if m != anyMode {
		offload = "offload " + string(m)
	}
	s.progress("round %d/%d %-11s %-25s %-12s %s", round+1, s.options.rounds, offload, what.title, c.name, text)
}

func (s *session) record(name string, m mode, round int, samples []sample) {
	at, load := time.Since(s.start).Seconds(), lab.LoadAverage()
	for _, sample := range samples {
		s.results.add(name, m, sample, observation{Round: round + 1, At: at, Load: load})
	}
}

// restart gives a contender that failed a fresh start, so that the next rows do
// not suffer from the same failure.
func (s *session) restart(ctx context.Context, c *contender) error {
	if err := s.takeDown(c); err != nil {
		s.progress("%v", err)
	}
	if s.restarts[c.name]++; s.restarts[c.name] > mostRestarts {
		s.fail(c, fmt.Errorf("failed %d times; see its failures in results.json", s.restarts[c.name]))
		return nil
	}
	s.bringUp(ctx, c)
	return ctx.Err()
}

// oneLine is an error for a remark below a table.
func oneLine(err error) string {
	const most = 400
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}
