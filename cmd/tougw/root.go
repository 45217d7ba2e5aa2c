package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tougw/tougw/config"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a wrong call of a command, as opposed to one that failed.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// errReported is a failure that the command's output has told of.
var errReported = errors.New("told already")

// newRoot returns the command tree. Each subcommand is in a file of its own.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "tougw",
		Short: "Carry TCP over UDP between gateways",
		Long: `tougw captures TCP flows at one side and ends them at the other. In between
they travel as TCP over UDP in GUE, protected by DTLS.`,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newRun(),
		newCheck(),
		newKeygen(),
		newStatus(),
		newFlows(),
		newTrace(),
		newHoma(),
		newVersion(),
	)
	asGroup(root)
	return root
}

// execute runs the command of args and returns the exit code. An error is
// reported on stderr, once.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	// We print errors ourselves, and usage only when it was asked for.
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.SetFlagErrorFunc(flagError)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var usage *usageError
	var file config.Errors
	switch {
	case errors.As(err, &usage):
		path := usage.cmd.CommandPath()
		fmt.Fprintf(stderr, "%s: %v\nRun '%s -h' for help.\n", path, err, path)
		return exitUsage
	case errors.Is(err, errReported):
	case errors.As(err, &file):
		// Each line starts with the name of the file.
		fmt.Fprintln(stderr, file)
	default:
		fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
	}
	return exitFailed
}

// flagError says what is wrong with a flag. Go's own words for numbers name its
// functions.
func flagError(cmd *cobra.Command, err error) error {
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		why := errors.Unwrap(bad)
		if number := (*strconv.NumError)(nil); errors.As(why, &number) {
			why = number.Err
		}
		err = fmt.Errorf("--%s %q: %w", bad.GetFlag().Name, bad.GetValue(), why)
	}
	return &usageError{cmd, err}
}

// asGroup makes cmd one that only has subcommands: anything else is a usage
// error, with a suggestion where a subcommand has a similar name.
func asGroup(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return &usageError{cmd, errors.New("a command is missing")}
		}
		msg := fmt.Sprintf("unknown command %q", args[0])
		// Cobra's own distance; it sets it only for its own message.
		cmd.SuggestionsMinimumDistance = 2
		if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
			msg += fmt.Sprintf("; did you mean %q?", strings.Join(s, `" or "`))
		}
		return &usageError{cmd, errors.New(msg)}
	}
}

// exactly wants the arguments names, no more and no less.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return &usageError{cmd, fmt.Errorf("%s is missing", names[len(args)])}
		case len(args) > len(names):
			return &usageError{cmd, fmt.Errorf("unexpected argument %q", args[len(names)])}
		}
		return nil
	}
}

// addConfigFlag adds -c FILE to cmd.
func addConfigFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration `FILE`")
}

// needConfig reports a missing -c as a usage error.
func needConfig(cmd *cobra.Command, file string) error {
	if file == "" {
		return &usageError{cmd, errors.New("-c FILE is missing")}
	}
	return nil
}
