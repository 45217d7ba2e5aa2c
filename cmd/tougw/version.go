package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// version and commit are set by the linker (-X main.version=...); empty, they
// come from the build information.
var (
	version string
	commit  string
)

// shownModules are the dependencies whose version says something about the
// behaviour on the wire or on the host.
var shownModules = []string{
	"gvisor.dev/gvisor",
	"github.com/pion/dtls/v3",
	"github.com/vishvananda/netlink",
	"github.com/songgao/water",
}

// newVersion returns `tougw version`.
func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of tougw and of the dependencies that matter",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, ok := debug.ReadBuildInfo()
			if !ok {
				info = new(debug.BuildInfo)
			}
			return writeVersion(cmd.OutOrStdout(), version, commit, info)
		},
	}
}

// writeVersion prints one line per item. version and commit win over info.
func writeVersion(w io.Writer, version, commit string, info *debug.BuildInfo) error {
	version = orModule(version, info)
	if commit == "" {
		commit = vcsCommit(info)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "tougw\t%s\n", version)
	fmt.Fprintf(tw, "commit\t%s\n", commit)
	fmt.Fprintf(tw, "go\t%s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, path := range shownModules {
		i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == path })
		if i < 0 {
			continue
		}
		m := info.Deps[i]
		if m.Replace != nil {
			m = m.Replace
		}
		fmt.Fprintf(tw, "%s\t%s\n", path, m.Version)
	}
	return tw.Flush()
}

// vcsCommit returns the commit that the go command recorded.
func vcsCommit(info *debug.BuildInfo) string {
	revision, modified := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " (modified)"
		}
	}
	return revision + modified
}

// orModule returns version, or that of the module when it is empty.
func orModule(version string, info *debug.BuildInfo) string {
	switch {
	case version != "":
		return version
	case info.Main.Version != "":
		return info.Main.Version
	}
	return "(devel)"
}

// shortVersion is the version alone, for status and logs.
func shortVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	return orModule(version, info)
}
