package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tougw/tougw/internal/pki"
)

// maxDays bounds --days: a certificate of more than a hundred years is a slip.
const maxDays = 36525

// newKeygen returns `tougw keygen` with its subcommands.
func newKeygen() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a CA, an identity or a pre-shared key",
		Long: `keygen makes the credentials of tougw. It prints the names of the files that it
made, and never overwrites one. Keys have mode 0600.`,
	}
	cmd.AddCommand(newKeygenCA(), newKeygenIdentity(), newKeygenPSK())
	asGroup(cmd)
	return cmd
}

func newKeygenCA() *cobra.Command {
	var out string
	var days int
	cmd := &cobra.Command{
		Use:   "ca --out DIR",
		Short: "Make a certificate authority: ca.crt and ca.key",
		Long: `ca makes a certificate authority (ECDSA, P-256). ca.crt goes to every host;
ca.key signs identities, and is needed nowhere else.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			validity, err := daysValidity(cmd, days)
			if err != nil {
				return err
			}
			files, err := pki.CA(out, validity)
			return printFiles(cmd, files, err)
		},
	}
	addOutFlag(cmd, &out)
	addDaysFlag(cmd, &days, pki.CAValidity)
	return cmd
}

func newKeygenIdentity() *cobra.Command {
	var ca, out string
	var days int
	cmd := &cobra.Command{
		Use:   "identity NAME --ca DIR --out DIR",
		Short: "Make an identity: NAME.crt, signed by the CA, and NAME.key",
		Long: `identity makes a certificate (ECDSA, P-256) with NAME as its DNS name, good for
both clients and gateways, and its key. NAME is what a peer's server_name and the
patterns of accept are compared with: a DNS name in lower case.`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			validity, err := daysValidity(cmd, days)
			if err != nil {
				return err
			}
			files, err := pki.Identity(args[0], ca, out, validity)
			return printFiles(cmd, files, err)
		},
	}
	cmd.Flags().StringVar(&ca, "ca", ".", "`DIR` with ca.crt and ca.key")
	addOutFlag(cmd, &out)
	addDaysFlag(cmd, &days, pki.IdentityValidity)
	return cmd
}

func newKeygenPSK() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "psk NAME --out DIR",
		Short: "Make a pre-shared key: NAME.psk",
		Long: `psk makes a random key of 32 bytes for the identity NAME: one line of
hexadecimal digits. The same file goes to the client (identity.psk.key_file) and,
under the same name, to the gateway (identity.psk_dir).`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := pki.PSK(args[0], out)
			return printFiles(cmd, []string{file}, err)
		},
	}
	addOutFlag(cmd, &out)
	return cmd
}

func addOutFlag(cmd *cobra.Command, out *string) {
	cmd.Flags().StringVar(out, "out", ".", "`DIR` to write to; made if it is missing")
}

func addDaysFlag(cmd *cobra.Command, days *int, def time.Duration) {
	cmd.Flags().IntVar(days, "days", int(def/(24*time.Hour)), "valid for so many `DAYS`")
}

func daysValidity(cmd *cobra.Command, days int) (pki.Validity, error) {
	if days < 1 || days > maxDays {
		return pki.Validity{}, &usageError{cmd, fmt.Errorf("--days %d is not in 1 to %d", days, maxDays)}
	}
	return pki.Validity{For: time.Duration(days) * 24 * time.Hour}, nil
}

// printFiles prints the names of the files that were made, unless err.
func printFiles(cmd *cobra.Command, files []string, err error) error {
	if err != nil {
		return err
	}
	for _, file := range files {
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), file); err != nil {
			return err
		}
	}
	return nil
}
