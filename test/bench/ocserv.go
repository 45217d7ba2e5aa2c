package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/tougw/tougw/internal/testnet"
	"github.com/tougw/tougw/test/lab"
)

// What both ends of ocserv agree on.
const (
	ocservUser     = "bench"
	ocservPassword = "not a secret"
	ocservNetwork  = "10.99.0.0"
	ocservLink     = "oc0"
)

// ocserv with openconnect is a DTLS VPN in C, one packet a system call.
func ocserv() *contender {
	return &contender{name: "ocserv", about: "with openconnect over DTLS 1.2", install: installOcserv, start: startOcserv}
}

func installOcserv(ctx context.Context, t *tools) (string, error) {
	if err := t.debian(ctx, "ocserv=ocserv", "ocpasswd=ocserv", "openconnect=openconnect"); err != nil {
		return "", err
	}
	var versions []string
	for _, program := range []string{"ocserv", "openconnect"} {
		path, err := lookPath(program)
		if err != nil {
			return "", err
		}
		// ocserv says it on standard error.
		out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%s --version: %w", program, err)
		}
		words := strings.Fields(firstLine(string(out)))
		if len(words) == 0 {
			return "", fmt.Errorf("%s does not say its version", program)
		}
		versions = append(versions, program+" "+words[len(words)-1])
	}
	return strings.Join(versions, ", "), nil
}

func startOcserv(ctx context.Context, l *lab.Lab, _ *tools) (e ends, details string, err error) {
	pin, err := ocservFiles(ctx, l)
	if err != nil {
		return e, "", err
	}
	program, err := lookPath("ocserv")
	if err != nil {
		return e, "", err
	}
	if e.gateway, err = l.Go(l.Gateway, "ocserv", program, "--foreground", "--config", l.Path("ocserv.conf")); err != nil {
		return e, "", err
	}
	if err := l.Gateway.WaitListening(ctx, lab.Port); err != nil {
		return e, "", fmt.Errorf("%w: %s", err, tail(l.Path("ocserv.log")))
	}
	if e.client, err = startOpenconnect(l, pin); err != nil {
		return e, "", err
	}
	// Until DTLS is up packets go through TLS, which would be another
	// contender.
	var suite string
	err = testnet.Poll(ctx, func() (err error) {
		select {
		case <-e.client.Done():
			return fmt.Errorf("openconnect ended: %v: %s", e.client.Wait(), tail(l.Path("openconnect.log")))
		default:
		}
		suite, err = dtlsSuite(tail(l.Path("openconnect.log")))
		return err
	})
	if err != nil {
		return e, "", err
	}
	link, err := serverLink(ctx, l.Gateway)
	if err != nil {
		return e, "", err
	}
	err = commands(ctx, l.Gateway, fmt.Sprintf("ip route add %s dev %s", testnet.AppPrefix, link))
	return e, suite + ", " + linkMTU(ctx, l.Sites[0].Gateway, ocservLink), err
}

// startOpenconnect starts the client, which gets its password from a file.
func startOpenconnect(l *lab.Lab, pin string) (*testnet.Process, error) {
	program, err := lookPath("openconnect")
	if err != nil {
		return nil, err
	}
	password, err := l.WriteFile("password", ocservPassword+"\n")
	if err != nil {
		return nil, err
	}
	// A shell only for the redirection; it is replaced by the client.
	return l.Go(l.Sites[0].Gateway, "openconnect", "sh", "-c", `exec "$0" "$@" <`+password, program,
		"--protocol=anyconnect", "--non-inter", "--passwd-on-stdin", "--user="+ocservUser, "--servercert="+pin,
		"--interface="+ocservLink, fmt.Sprintf("--base-mtu=%d", outerMTU), "--script="+l.Path("script"),
		fmt.Sprintf("https://%s:%d/", testnet.GatewayAddr, lab.Port))
}

var established = regexp.MustCompile(`Established DTLS connection.*Ciphersuite ([^\s]+?)\.?\s`)

// dtlsSuite finds in openconnect's log that DTLS is up.
func dtlsSuite(log string) (string, error) {
	if m := established.FindStringSubmatch(log); m != nil {
		return m[1], nil
	}
	return "", fmt.Errorf("no DTLS connection: %s", log)
}

// serverLink is the name of ocserv's device for its only client.
func serverLink(ctx context.Context, ns *testnet.Namespace) (string, error) {
	out, err := ns.Run(ctx, "ip", "-o", "link", "show")
	if err != nil {
		return "", err
	}
	if m := regexp.MustCompile(`\d+: (vpns\w+)[:@]`).FindStringSubmatch(out); m != nil {
		return m[1], nil
	}
	return "", errors.New("ocserv made no device")
}

// ocservFiles writes certificate, password file, configuration and the client's
// script, and returns the certificate's pin.
func ocservFiles(ctx context.Context, l *lab.Lab) (pin string, err error) {
	if pin, err = selfSigned(l); err != nil {
		return "", err
	}
	program, err := lookPath("ocpasswd")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, "-c", l.Path("ocpasswd"), ocservUser)
	cmd.Stdin = strings.NewReader(ocservPassword + "\n" + ocservPassword + "\n")
	if _, err := outputOf(cmd); err != nil {
		return "", err
	}
	if _, err := l.WriteFile("ocserv.conf", fmt.Sprintf(`
auth = "plain[passwd=%[1]s/ocpasswd]"
tcp-port = %[2]d
udp-port = %[2]d
run-as-user = root
run-as-group = root
socket-file = %[1]s/ocserv-socket
use-occtl = false
pid-file = %[1]s/ocserv.pid
server-cert = %[1]s/server.crt
server-key = %[1]s/server.key
isolate-workers = false
max-clients = 4
max-same-clients = 2
rate-limit-ms = 0
keepalive = 32400
dpd = 90
try-mtu-discovery = false
mtu = %[5]d
compression = false
tls-priorities = "NORMAL:%%SERVER_PRECEDENCE"
auth-timeout = 40
cookie-timeout = 300
rekey-time = 172800
rekey-method = ssl
log-level = 1
device = vpns
predictable-ips = true
ipv4-network = %[3]s
ipv4-netmask = 255.255.255.0
ping-leases = false
route = %[4]s
cisco-client-compat = true
dtls-legacy = true
dtls-psk = true
`, l.Dir, lab.Port, ocservNetwork, testnet.ServerPrefix, outerMTU)); err != nil {
		return "", err
	}
	script, err := l.WriteFile("script", fmt.Sprintf(`#!/bin/sh
# Sets the client's device up, as openconnect asks it to.
set -e
case $reason in
connect)
	ip link set dev "$TUNDEV" mtu "$INTERNAL_IP4_MTU" up
	ip addr add "$INTERNAL_IP4_ADDRESS/32" dev "$TUNDEV"
	ip route add %s dev "$TUNDEV"
	;;
esac
`, testnet.ServerPrefix))
	if err != nil {
		return "", err
	}
	return pin, os.Chmod(script, 0o755)
}

// selfSigned writes server.crt and server.key and returns the certificate's
// pin, in openconnect's notation.
func selfSigned(l *lab.Lab) (pin string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gateway"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(public)
	_, certErr := l.WriteFile("server.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	_, keyErr := l.WriteFile("server.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return "pin-sha256:" + base64.StdEncoding.EncodeToString(sum[:]), errors.Join(certErr, keyErr)
}

// tail is the end of a log, for messages.
func tail(file string) string {
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-1500):]))
}
