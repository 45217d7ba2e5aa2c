package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/tougw/tougw/internal/testnet"
)

// Ports of the servers of a lab, all in the server's namespace.
const (
	HTTPPort  = 80
	IperfPort = 5201
	SSHPort   = 22
)

// Nginx serves the folder www of the lab over HTTP, in both families.
func (l *Lab) Nginx(ctx context.Context) error {
	if err := os.MkdirAll(l.Path("www"), 0o755); err != nil {
		return err
	}
	config, err := l.WriteFile("nginx.conf", fmt.Sprintf(`
user root;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx-error.log;
events { worker_connections 4096; }
http {
	access_log off;
	sendfile on;
	client_max_body_size 0;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	keepalive_requests 100000;
	server {
		listen %[2]d;
		listen [::]:%[2]d;
		root %[1]s/www;
	}
}
`, l.Dir, HTTPPort))
	if err != nil {
		return err
	}
	p, err := l.Go(l.Server, "nginx", "nginx", "-p", l.Dir, "-c", config, "-g", "daemon off;")
	if err != nil {
		return err
	}
	return l.untilListening(ctx, l.Server, "nginx", p, HTTPPort)
}

// IperfServer serves iperf3 tests in ns, one after another.
func (l *Lab) IperfServer(ctx context.Context, ns *testnet.Namespace) error {
	p, err := l.Go(ns, "iperf3", "iperf3", "-s", "-p", strconv.Itoa(IperfPort))
	if err != nil {
		return err
	}
	return l.untilListening(ctx, ns, "iperf3", p, IperfPort)
}

// IperfOptions describe one run of an iperf3 client.
type IperfOptions struct {
	// To is the server's address.
	To netip.Addr
	// Seconds to measure.
	Seconds int
	// Streams in parallel; 0 means 1.
	Streams int
	// Down lets the server send.
	Down bool
	// Congestion control of both ends; empty for cubic, which paces nothing and
	// is the same on every host.
	Congestion string
}

// IperfResult is what arrived.
type IperfResult struct {
	// BitsPerSecond is the goodput at the receiver.
	BitsPerSecond float64
	// Bytes that the receiver got.
	Bytes int64
}

// Gbps is the goodput in Gbit/s.
func (r IperfResult) Gbps() float64 { return r.BitsPerSecond / 1e9 }

// Iperf runs an iperf3 client in ns.
func Iperf(ctx context.Context, ns *testnet.Namespace, o IperfOptions) (r IperfResult, err error) {
	congestion := o.Congestion
	if congestion == "" {
		congestion = "cubic"
	}
	args := []string{"-c", o.To.String(), "-p", strconv.Itoa(IperfPort), "-J", "-C", congestion,
		"-t", strconv.Itoa(o.Seconds), "-P", strconv.Itoa(max(1, o.Streams)), "--connect-timeout", "5000"}
	if o.Down {
		args = append(args, "-R")
	}
	out, runErr := ns.Run(ctx, "iperf3", args...)
	var answer struct {
		Error string
		End   struct {
			Received struct {
				Bytes         int64
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	// iperf3 3.12 prints "-nan" and "inf" for what it could not divide; with
	// those the answer is no JSON and the run no measurement.
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return r, fmt.Errorf("lab: iperf3: %w %w: %.500s", runErr, err, out)
	}
	if runErr != nil || answer.Error != "" {
		return r, fmt.Errorf("lab: iperf3: %w: %s", runErr, answer.Error)
	}
	r = IperfResult{BitsPerSecond: answer.End.Received.BitsPerSecond, Bytes: answer.End.Received.Bytes}
	if r.Bytes == 0 || math.IsNaN(r.BitsPerSecond) {
		return r, fmt.Errorf("lab: iperf3: nothing arrived: %.500s", out)
	}
	return r, nil
}

// SSHServer runs an sshd with keys of its own in the server's namespace; the
// arguments for ssh and scp that make them use the matching client key come
// back.
func (l *Lab) SSHServer(ctx context.Context) (args []string, err error) {
	// Where sshd locks its unprivileged part up; Debian's unit makes it.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return nil, err
	}
	dir := l.Path("ssh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, key := range []string{"host", "user"} {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("lab: ssh-keygen: %w: %s", err, out)
		}
	}
	config, err := l.WriteFile("ssh/sshd_config", fmt.Sprintf(`
Port %[2]d
HostKey %[1]s/host
AuthorizedKeysFile %[1]s/user.pub
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
PrintMotd no
Subsystem sftp internal-sftp
`, dir, SSHPort))
	if err != nil {
		return nil, err
	}
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	p, err := l.Go(l.Server, "sshd", sshd, "-D", "-e", "-f", config)
	if err != nil {
		return nil, err
	}
	args = []string{"-F", "none", "-i", filepath.Join(dir, "user"), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20"}
	return args, l.untilListening(ctx, l.Server, "sshd", p, SSHPort)
}
