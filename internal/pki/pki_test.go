package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// folder lists a folder, with the mode of each file.
func folder(t *testing.T, dir string) string {
	t.Helper()
	entries := must(os.ReadDir(dir))(t)
	var l []string
	for _, e := range entries {
		info := must(e.Info())(t)
		l = append(l, info.Mode().String()+" "+e.Name())
	}
	return strings.Join(l, "\n")
}

func TestCAAndIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	files := must(CA(dir, Validity{}))(t)
	if got := strings.Join(files, " "); got != dir+"/ca.crt "+dir+"/ca.key" {
		t.Errorf("CA made %s", got)
	}
	files = must(Identity("edge.example", dir, dir, Validity{}))(t)
	if got := strings.Join(files, " "); got != dir+"/edge.example.crt "+dir+"/edge.example.key" {
		t.Errorf("Identity made %s", got)
	}
	const want = "-rw-r--r-- ca.crt\n-rw------- ca.key\n-rw-r--r-- edge.example.crt\n-rw------- edge.example.key"
	if got := folder(t, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	ca := must(LoadCertificate(dir+"/ca.crt", dir+"/ca.key"))(t).Leaf
	if !ca.IsCA || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("CA: IsCA %v, MaxPathLenZero %v, KeyUsage %b", ca.IsCA, ca.MaxPathLenZero, ca.KeyUsage)
	}
	leaf := must(LoadCertificate(dir+"/edge.example.crt", dir+"/edge.example.key"))(t).Leaf
	if leaf.IsCA || leaf.Subject.String() != "" || len(leaf.DNSNames) != 1 || len(leaf.IPAddresses)+len(leaf.EmailAddresses)+len(leaf.URIs) != 0 {
		t.Errorf("identity: IsCA %v, subject %q, names %v", leaf.IsCA, leaf.Subject, leaf.DNSNames)
	}
	for _, c := range []*x509.Certificate{ca, leaf} {
		if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
			t.Errorf("%v has a key of type %T", c.Subject, c.PublicKey)
		}
	}
	for c, years := range map[*x509.Certificate]time.Duration{ca: 10, leaf: 2} {
		if left := time.Until(c.NotAfter); left < years*364*24*time.Hour || left > years*366*24*time.Hour {
			t.Errorf("%v is valid for another %v", c.Subject, left)
		}
		if since := time.Since(c.NotBefore); since < backdate || since > backdate+time.Minute {
			t.Errorf("%v is valid since %v", c.Subject, since)
		}
	}

	roots := must(LoadRoots(dir + "/ca.crt"))(t)
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		opts := x509.VerifyOptions{Roots: roots, DNSName: "edge.example", KeyUsages: []x509.ExtKeyUsage{usage}}
		if _, err := leaf.Verify(opts); err != nil {
			t.Errorf("usage %d: %v", usage, err)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "edge"}); err == nil {
		t.Error("another name is verified")
	}
	other := t.TempDir()
	must(CA(other, Validity{}))(t)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: must(LoadRoots(other + "/ca.crt"))(t)}); err == nil {
		t.Error("another CA is believed")
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := t.TempDir()
	must(CA(dir, Validity{}))(t)
	must(Identity("edge", dir, dir, Validity{}))(t)
	must(PSK("edge", dir))(t)
	read := func() []byte {
		var all []byte
		for _, e := range must(os.ReadDir(dir))(t) {
			all = append(all, must(os.ReadFile(filepath.Join(dir, e.Name())))(t)...)
		}
		return all
	}
	before := read()
	if _, err := CA(dir, Validity{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CA: %v", err)
	}
	if _, err := Identity("edge", dir, dir, Validity{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Identity: %v", err)
	}
	if _, err := PSK("edge", dir); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), dir+"/edge.psk exists already") {
		t.Errorf("PSK: %v", err)
	}
	if _, err := Identity("ca", dir, dir+"/.", Validity{}); err == nil {
		t.Error("an identity took the files of the CA")
	}
	// Half of a pair is as much of an obstacle, and leaves nothing behind.
	if err := os.Remove(dir + "/edge.key"); err != nil {
		t.Fatal(err)
	}
	if _, err := Identity("edge", dir, dir, Validity{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Identity with half of the files: %v", err)
	}
	if _, err := os.Stat(dir + "/edge.key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was left behind: %v", err)
	}
	if len(must(os.ReadDir(dir))(t)) != 4 || len(read()) >= len(before) {
		t.Errorf("files changed:\n%s", folder(t, dir))
	}
}

// TestWritersRace has writers of one file at the same time: one wins, and its
// file is whole.
func TestWritersRace(t *testing.T) {
	dir := t.TempDir()
	const writers = 8
	errs := make(chan error)
	for range writers {
		go func() {
			_, err := PSK("edge", dir)
			errs <- err
		}()
	}
	won := 0
	for range writers {
		if err := <-errs; err == nil {
			won++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d writers won", won)
	}
	must(LoadPSK(dir + "/edge.psk"))(t)
	if got := folder(t, dir); got != "-rw------- edge.psk" {
		t.Errorf("left behind:\n%s", got)
	}
}

func TestValidity(t *testing.T) {
	dir := t.TempDir()
	from := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	must(CA(dir, Validity{NotBefore: from, For: 48 * time.Hour}))(t)
	must(Identity("short", dir, dir, Validity{NotBefore: from, For: time.Hour}))(t)
	must(Identity("long", dir, dir, Validity{NotBefore: from, For: 1000 * time.Hour}))(t)
	for name, want := range map[string]time.Time{"short": from.Add(time.Hour), "long": from.Add(48 * time.Hour)} {
		leaf := must(LoadCertificate(dir+"/"+name+".crt", dir+"/"+name+".key"))(t).Leaf
		if !leaf.NotBefore.Equal(from) || !leaf.NotAfter.Equal(want) {
			t.Errorf("%s: %v to %v", name, leaf.NotBefore, leaf.NotAfter)
		}
	}
	// The CA has expired.
	if _, err := Identity("late", dir, dir, Validity{}); err == nil || !strings.Contains(err.Error(), "ca.crt is valid until 2020-01-03") {
		t.Errorf("got %v", err)
	}
	if _, err := CA(t.TempDir(), Validity{For: -time.Hour}); err == nil {
		t.Error("a negative time is accepted")
	}
	// An identity signs nothing.
	must(Identity("leaf", must(newCA(t))(t), dir, Validity{}))(t)
	sub := t.TempDir()
	for _, ext := range []string{".crt", ".key"} {
		b := must(os.ReadFile(dir + "/leaf" + ext))(t)
		if err := os.WriteFile(sub+"/ca"+ext, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Identity("x", sub, sub, Validity{}); err == nil || !strings.Contains(err.Error(), "is not the certificate of a CA") {
		t.Errorf("got %v", err)
	}
}

func newCA(t *testing.T) (string, error) {
	dir := t.TempDir()
	_, err := CA(dir, Validity{})
	return dir, err
}

func TestPSK(t *testing.T) {
	dir := t.TempDir()
	path := must(PSK("laptop-7", dir))(t)
	if path != dir+"/laptop-7.psk" || folder(t, dir) != "-rw------- laptop-7.psk" {
		t.Errorf("made %s, in\n%s", path, folder(t, dir))
	}
	key := must(LoadPSK(path))(t)
	if len(key) != 32 {
		t.Errorf("a key of %d bytes", len(key))
	}
	must(PSK("laptop-8", dir))(t)
	keys := must(LoadPSKDir(dir))(t)
	if len(keys) != 2 || !bytes.Equal(keys["laptop-7"], key) || bytes.Equal(keys["laptop-8"], key) {
		t.Errorf("keys are %v", keys)
	}
}

func TestLoadPSKRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.psk")
	good := strings.Repeat("a5", 32)
	for _, c := range []struct{ content, want string }{
		{good, ""},
		{good + "\n", ""},
		{good + "\r\n", ""},
		{strings.ToUpper(good), ""},
		{strings.Repeat("a5", 16), ""},
		{strings.Repeat("a5", 64), ""},
		{strings.Repeat("a5", 15), "a key of 15 bytes; 16 to 64 are possible"},
		{strings.Repeat("a5", 65), "a key of 65 bytes; 16 to 64 are possible"},
		{"", "a key of 0 bytes"},
		{good + "\n\n", "not one line"},
		{" " + good, "not one line"},
		{good + "a", "not one line"},
		{good + "\n" + good, "not one line"},
		{strings.Repeat("zz", 32), "not one line"},
	} {
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadPSK(path)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.content, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path)):
			t.Errorf("%q: got %v, want %s", c.content, err, c.want)
		case err != nil && c.content != "" && strings.Contains(err.Error(), c.content):
			t.Errorf("the error repeats the key: %v", err)
		}
	}
}

func TestPrivateFiles(t *testing.T) {
	dir := t.TempDir()
	path := must(PSK("a", dir))(t)
	for _, mode := range []fs.FileMode{0o600, 0o400, 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		must(LoadPSK(path))(t)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPSK(path); err == nil || !strings.Contains(err.Error(), "run: chmod 600 "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestStrangeFiles(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(dir+"/fifo.psk", 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPSK(dir + "/fifo.psk"); err == nil || !strings.Contains(err.Error(), "fifo.psk is not a regular file") {
		t.Errorf("FIFO: %v", err)
	}
	if _, err := LoadPSK(dir); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("folder: %v", err)
	}
	if err := os.WriteFile(dir+"/large.psk", make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPSK(dir + "/large.psk"); err == nil || !strings.Contains(err.Error(), "large.psk is larger than 1048576 bytes") {
		t.Errorf("large: %v", err)
	}
	if _, err := LoadPSK(dir + "/none.psk"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	// All of the folder's defects come at once; other files do not count.
	if err := os.WriteFile(dir+"/.hidden.psk", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/README", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := LoadPSKDir(dir)
	want := dir + "/fifo.psk is not a regular file; " + dir + "/large.psk is larger than 1048576 bytes"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestForeignFiles loads what other programs write.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	must(CA(dir, Validity{}))(t)
	must(Identity("edge", dir, dir, Validity{}))(t)
	cert := must(os.ReadFile(dir + "/edge.crt"))(t)
	ca := must(os.ReadFile(dir + "/ca.crt"))(t)
	block, _ := pem.Decode(must(os.ReadFile(dir + "/edge.key"))(t))
	key := must(x509.ParsePKCS8PrivateKey(block.Bytes))(t).(*ecdsa.PrivateKey)
	sec1 := must(x509.MarshalECPrivateKey(key))(t)
	put := func(name string, parts ...[]byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Join(parts, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}})
	ecKey := put("ec.key", []byte("some text\n"), params, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
	chain := put("chain.crt", cert, ca)
	if c := must(LoadCertificate(chain, ecKey))(t); len(c.Certificate) != 2 || c.Leaf.DNSNames[0] != "edge" {
		t.Errorf("chain of %d, leaf %v", len(c.Certificate), c.Leaf.DNSNames)
	}
	if err := CheckKey(put("locked.key", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: sec1}))); err == nil || !strings.Contains(err.Error(), "locked.key is encrypted") {
		t.Errorf("locked key: %v", err)
	}
	if err := CheckKey(put("broken.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: sec1[:9]}))); err == nil || !strings.Contains(err.Error(), "broken.key: ") {
		t.Errorf("broken key: %v", err)
	}
	broken := put("broken.crt", cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))
	if err := CheckCertificate(broken); err == nil || !strings.Contains(err.Error(), "broken.crt: certificate 2: ") {
		t.Errorf("broken certificate: %v", err)
	}
	if _, err := LoadRoots(broken); err == nil {
		t.Error("broken roots are loaded")
	}
	must(LoadRoots(put("bundle.crt", ca, cert, ca)))(t)
	if _, err := LoadCertificate(dir+"/ca.crt", ecKey); err == nil || !strings.Contains(err.Error(), "ec.key is not the key of "+dir+"/ca.crt") {
		t.Errorf("wrong pair: %v", err)
	}
}

// TestNames checks that x509 verifies every name that is allowed, and that
// nothing is made for another.
func TestNames(t *testing.T) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	for _, name := range []string{"a", "laptop-7", "edge.example.com", "a_b", "_x", "1a", "10.0.0.1.example", strings.Repeat("a", 63), strings.Repeat("a.", 126) + "a"} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		template := &x509.Certificate{DNSNames: []string{name}}
		der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
		if err := must(x509.ParseCertificate(der))(t).VerifyHostname(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", ".", "..", "a.", ".a", "a..b", "-a", "a-", "a.-b", "A", "é", "a b", "a/b", "../a", "a\x00", "*", "*.a", "a\n",
		"7", "10.0.0.1", "::1", "a:1", strings.Repeat("a", 64), strings.Repeat("a.", 127),
	} {
		if err := CheckName(name); err == nil {
			t.Errorf("%q is a name", name)
		}
		if _, err := PSK(name, t.TempDir()); err == nil {
			t.Errorf("a key is made for %q", name)
		}
		if _, err := Identity(name, t.TempDir(), t.TempDir(), Validity{}); err == nil || !strings.HasPrefix(err.Error(), "name ") {
			t.Errorf("identity %q: %v", name, err)
		}
	}
}
