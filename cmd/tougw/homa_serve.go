package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tougw/tougw/homa/rpc"
)

// maxLinuxPort is the last port of servers to Linux hosts; those above are clients.
const maxLinuxPort = 32767

// newHomaServe returns `tougw homa serve`.
func newHomaServe() *cobra.Command {
	var flags homaFlags
	var port uint16
	var echo, sink bool
	cmd := &cobra.Command{
		Use:   "serve --port PORT {--echo | --sink}",
		Short: "Answer the requests to a Homa port",
		Long: `serve answers every request to a Homa port until it gets SIGINT or SIGTERM: with
the request itself (--echo), or with its length as a decimal number (--sink).
Other Homa ports of this host are refused (ICMP port unreachable).`,
		Example: "  tougw homa serve --port 4000 --echo",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if port == 0 {
				return &usageError{cmd, fmt.Errorf("--port is missing or 0: want 1 to 65535; Linux hosts call ports up to %d", maxLinuxPort)}
			}
			switch {
			case !echo && !sink:
				return &usageError{cmd, errors.New("--echo or --sink is missing")}
			case echo && sink:
				return &usageError{cmd, errors.New("--echo and --sink exclude each other")}
			}
			cfg, version, err := flags.parse(cmd)
			if err != nil {
				return err
			}
			node, conn, err := startNode(cfg, version)
			if err != nil {
				return err
			}
			defer node.Close()
			warn := func(format string, args ...any) {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: warning: "+format+"\n", append([]any{cmd.CommandPath()}, args...)...)
			}
			if reason := conn.BufferReason(); reason != "" {
				warn("%s", reason)
			}
			if port > maxLinuxPort {
				warn("port %d: Linux hosts call ports up to %d only", port, maxLinuxPort)
			}
			handler, what := rpc.HandlerFunc(answerEcho), "echo"
			if sink {
				handler, what = answerSink, "sink"
			}
			ctx, stop := untilSignal(cmd)
			defer stop()
			server, err := node.Listen(port, handler, rpc.ServeConfig{})
			if err != nil {
				return err
			}
			defer server.Close()
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "serving Homa port %d: %s\n", port, what); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				s := node.Stats()
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d requests: %d answered, %d lost because their client gave up or fell silent\n",
					s.Served, s.Served-s.ServedFailed, s.ServedFailed)
			case <-node.Done():
				err = errors.New("the sockets failed")
			}
			return err
		},
	}
	flags.add(cmd)
	cmd.Flags().Uint16Var(&port, "port", 0, "Homa `PORT` to serve, up to 32767 for Linux hosts")
	cmd.Flags().BoolVar(&echo, "echo", false, "answer with the request")
	cmd.Flags().BoolVar(&sink, "sink", false, "answer with the length of the request")
	return cmd
}

// answerEcho answers with the request.
func answerEcho(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
	b, err := req.ReadAll()
	if err != nil {
		return err
	}
	if err := w.SetLength(len(b)); err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// answerSink answers with the length of the request.
func answerSink(_ context.Context, req *rpc.Request, w *rpc.ResponseWriter) error {
	n, err := io.Copy(io.Discard, req)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%d", n)
	return err
}
