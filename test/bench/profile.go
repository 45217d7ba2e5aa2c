package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// profile has run done while profiles of the processor time of each gateway that
// offers them are taken into folder, for a second: the shortest run lasts as long.
func profile(ctx context.Context, folder, what string, round int, sockets []string, run func() ([]sample, error)) ([]sample, error) {
	var wg sync.WaitGroup
	errs := make([]error, len(sockets))
	for i, socket := range sockets {
		end := strings.TrimSuffix(filepath.Base(socket), ".sock")
		name := fmt.Sprintf("%s-%d-%s.pprof", strings.NewReplacer(" ", "-", ",", "").Replace(what), round+1, end)
		wg.Go(func() { errs[i] = fetchProfile(ctx, socket, filepath.Join(folder, name)) })
	}
	samples, err := run()
	wg.Wait()
	return samples, errors.Join(append(errs, err)...)
}

// fetchProfile takes one profile from an admin socket.
func fetchProfile(ctx context.Context, socket, file string) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tougw/debug/pprof/profile?seconds=1", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s", resp.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, resp.Body)
	return errors.Join(err, out.Close())
}
