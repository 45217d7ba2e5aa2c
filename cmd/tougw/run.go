package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/tougw/tougw/config"
	"github.com/tougw/tougw/gateway"
	"github.com/tougw/tougw/internal/admin"
)

// drainTimeout is how long a daemon that was asked to stop lets flows end by
// themselves. A second signal ends the wait.
const drainTimeout = 5 * time.Second

// newRun returns `tougw run`.
func newRun() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "run -c FILE",
		Short: "Run the daemon in the foreground",
		Long: `run reads a configuration file, as check does, and carries flows until it gets
SIGINT or SIGTERM. Then it opens no new flows, lets those that exist end for up
to 5 seconds, and removes everything that it added to the host. A second signal
ends the wait. Logs are on stderr.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needConfig(cmd, file); err != nil {
				return err
			}
			return run(cmd, file)
		},
	}
	addConfigFlag(cmd, &file)
	return cmd
}

func run(cmd *cobra.Command, file string) error {
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	log := newLogger(cmd, cfg)
	for _, w := range cfg.Warnings {
		log.Warn("configuration", "remark", w.Error())
	}
	if cfg.UsesHoma() && cfg.Tun == nil && len(cfg.Listen)+len(cfg.Peers) == 0 {
		addProcessors()
	}
	ctx, stop := stopOnSignal(cmd.Context(), log)
	defer stop()
	g, err := gateway.New(cfg, gateway.Options{
		Logger: log, Version: shortVersion(), DrainTimeout: drainTimeout, Ready: func() { notify(log, daemon.SdNotifyReady) },
	})
	if err != nil {
		return err
	}
	return g.Run(ctx)
}

// addProcessors lets two goroutines more run at a time than the runtime would, unless
// the administrator has decided. What sends Homa packets keeps its place among those
// for as long as the kernel carries them, and a small host has few: beside transfers,
// small requests waited for it although a processor was free. It is for a host that
// has no tunnel, whose sockets, queues and stacks follow the number of processors. A
// later change of a control group's limit is not followed then.
func addProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	}
}

// notify tells the service manager, if there is one.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("service manager not notified", "state", state, "err", err)
	}
}

// stopOnSignal ends the context on the first SIGINT or SIGTERM. The second one
// ends the process, as if there were no handler.
func stopOnSignal(parent context.Context, log *slog.Logger) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case s := <-ch:
			log.Info("signal", "signal", s)
			notify(log, daemon.SdNotifyStopping)
			signal.Stop(ch)
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(ch); cancel() }
}

func newLogger(cmd *cobra.Command, cfg *config.Config) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Log.Level}
	if cfg.Log.Format == config.FormatJSON {
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), opts))
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), opts))
}

// adminSocket finds the socket that a command asks: --socket, the one of -c, or
// the only one in dir. Who asks need not be able to read the keys of -c.
func adminSocket(socket, file, dir string) (string, error) {
	switch {
	case socket != "":
		return socket, nil
	case file != "":
		cfg, err := config.Peek(file)
		if err != nil {
			return "", err
		}
		return cfg.Admin.Socket, nil
	}
	return admin.FindSocket(dir)
}
