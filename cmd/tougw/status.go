package main

import (
	"context"
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"github.com/tougw/tougw/internal/admin"
)

// newStatus returns `tougw status`.
func newStatus() *cobra.Command {
	return newQuery("status", "Show peers, capture, sockets and drops of the running daemon",
		func(ctx context.Context, c *admin.Client, w io.Writer, asJSON bool) error {
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(w, s)
			}
			return s.WriteText(w)
		})
}

// newFlows returns `tougw flows`.
func newFlows() *cobra.Command {
	return newQuery("flows", "List the flows of the running daemon",
		func(ctx context.Context, c *admin.Client, w io.Writer, asJSON bool) error {
			f, err := c.Flows(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(w, f)
			}
			return admin.WriteFlows(w, f)
		})
}

// newQuery returns a command that asks the running daemon.
func newQuery(name, short string, ask func(ctx context.Context, c *admin.Client, w io.Writer, asJSON bool) error) *cobra.Command {
	var file, socket string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   name + " [--json] [--socket PATH | -c FILE]",
		Short: short,
		Long: short + `.

The daemon is asked over its admin socket: that of --socket, else that of the
configuration -c, else the only one in ` + admin.RunDir + `.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := adminSocket(socket, file, admin.RunDir)
			if err != nil {
				return err
			}
			return ask(cmd.Context(), admin.NewClient(path), cmd.OutOrStdout(), asJSON)
		},
	}
	addConfigFlag(cmd, &file)
	cmd.Flags().StringVar(&socket, "socket", "", "admin socket `PATH`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the document as JSON, for programs")
	cmd.MarkFlagsMutuallyExclusive("socket", "config")
	return cmd
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
