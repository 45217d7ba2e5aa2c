package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tougw/tougw/config"
)

// newCheck returns `tougw check`.
func newCheck() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Check a configuration file and the files that it names",
		Long: `check reads a configuration file and the certificates and keys that it names,
and touches nothing else. A file that can be used is answered with one line on
stdout. All errors of one that cannot are on stderr, one a line:

  FILE:LINE:COL: KEY: MESSAGE`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needConfig(cmd, file); err != nil {
				return err
			}
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			if len(cfg.Warnings) > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), cfg.Warnings)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", file)
			return err
		},
	}
	addConfigFlag(cmd, &file)
	return cmd
}
